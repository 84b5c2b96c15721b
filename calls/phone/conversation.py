"""What is said in a call: the server's replies, and the transcript as the platform keeps it.
Values and times in, rows out; no clock, no socket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, NamedTuple

from msgspec import Struct

from agents.actions import Action
from calls.protocol import Speech

# Words a second, where speech has to take time.
NOMINAL_PACE = 3.0


class Reply(Struct, eq=False):
    """What the server said for one request, for one interrupt, or as the begin message (id 0).

    `superseded` replies were overtaken by a newer request, or by an interrupt: nothing more is heard of them.
    """

    id: int
    asked_at: float
    text: str = ""
    frames: list[Speech] = []
    first_at: float | None = None
    done_at: float | None = None
    superseded: bool = False

    @property
    def complete(self) -> bool:
        """The final frame is in."""
        return self.done_at is not None

    @property
    def first_ms(self) -> float | None:
        """Milliseconds from the request to the first words; None when there were none."""
        return None if self.first_at is None else (self.first_at - self.asked_at) * 1000

    @property
    def done_ms(self) -> float | None:
        """Milliseconds from the request to the final frame; None while it is missing."""
        return None if self.done_at is None else (self.done_at - self.asked_at) * 1000

    @property
    def action(self) -> Action | None:
        """What the platform is asked to do once the words are spoken."""
        return self.frames[-1].action if self.frames else None

    @property
    def protected(self) -> bool:
        """The caller cannot interrupt any part of it: the flag counts per frame (protocol.md A20)."""
        return bool(self.frames) and all(frame.no_interruption_allowed for frame in self.frames)

    def take(self, frame: Speech, now: float) -> None:
        """Adds the next frame."""
        self.frames.append(frame)
        self.text += frame.content
        if frame.content and self.first_at is None:
            self.first_at = now
        if frame.content_complete:
            self.done_at = now


class Fragment(NamedTuple):
    """Words on the line from `start` to `end`, in seconds of the phone's clock."""

    text: str
    start: float
    end: float
    protected: bool = False

    def heard(self, now: float) -> str:
        """The words that were audible by `now`."""
        if now >= self.end:
            return self.text
        words = _words(self.text)
        return "".join(words[: int(len(words) * max(0.0, now - self.start) / (self.end - self.start))])

    def until(self, now: float) -> Fragment:
        """What is left of it when the speaker is cut off; protected words are spoken all the same."""
        return self if self.protected or now >= self.end else Fragment(self.heard(now), self.start, now)


class Utterance(Struct, eq=False):
    """What one side said in one go; `source` tells one reply of the agent from the next."""

    role: str
    source: Reply | None
    fragments: list[Fragment]

    def row(self, now: float) -> dict[str, Any]:
        """As the platform sends it; empty when nothing of it was spoken by `now`."""
        content = "".join(fragment.heard(now) for fragment in self.fragments).strip()
        return {"role": self.role, "content": content} if content else {}


class Conversation:
    """The transcript as the platform keeps it: only what was spoken.

    The agent speaks `pace` words a second; without a pace words are spoken the moment they arrive.
    """

    def __init__(self, pace: float | None = None, began: float = 0.0) -> None:
        self.pace = pace
        self.began = began
        self.spoken_at = 0.0
        self.entries: list[Utterance | dict[str, Any]] = []

    def hear_caller(self, text: str, now: float) -> None:
        """The caller's words; a caller whom nobody answered yet goes on with the same utterance."""
        last = self.entries[-1] if self.entries else None
        if isinstance(last, Utterance) and last.role == "user":
            last.fragments.append(Fragment(f" {text}", now, now))
        else:
            self.entries.append(Utterance("user", None, [Fragment(text, now, now)]))

    def hear_agent(self, reply: Reply, text: str, now: float, protected: bool) -> None:
        """The agent's words, spoken after those that still wait to be."""
        start = max(now, self.spoken_at)
        self.spoken_at = start + (len(_words(text)) / self.pace if self.pace else 0.0)
        fragment = Fragment(text, start, self.spoken_at, protected)
        last = self.entries[-1] if self.entries else None
        if isinstance(last, Utterance) and last.source is reply:
            last.fragments.append(fragment)
        else:
            self.entries.append(Utterance("agent", reply, [fragment]))

    def cut(self, now: float, heard: str | None = None) -> None:
        """The agent stops talking: what was not spoken by `now` was never said, or exactly `heard` was."""
        latest = self._agents_latest()
        for utterance in latest:
            utterance.fragments = [fragment.until(now) for fragment in utterance.fragments]
        if heard is not None and latest:
            for utterance in latest:
                utterance.fragments = [] if utterance.source is latest[0].source else utterance.fragments
            latest[0].fragments = [Fragment(heard, now, now)]
        ends = [fragment.end for utterance in latest for fragment in utterance.fragments]
        self.spoken_at = max([now, *ends])

    def _agents_latest(self) -> list[Utterance]:
        """What the agent said since the caller spoke last, the newest first."""
        speech = (entry for entry in reversed(self.entries) if isinstance(entry, Utterance))
        return list(takewhile(lambda utterance: utterance.role == "agent", speech))

    def note(self, event: Mapping[str, Any]) -> None:
        """A tool event or a key press, for the transcript with tool calls."""
        self.entries.append(dict(event))

    def transcript(self, now: float, *, words: bool = False) -> list[dict[str, Any]]:
        """Utterances as the platform sends them, with word timings if wanted."""
        whole: list[Utterance | dict[str, Any]] = []
        for entry in self.entries:
            last = whole[-1] if whole else None
            if not isinstance(entry, Utterance):
                continue
            if isinstance(last, Utterance) and entry.source is not None and last.source is entry.source:
                whole[-1] = Utterance("agent", entry.source, last.fragments + entry.fragments)
            else:
                whole.append(entry)
        return self._rows(whole, now, words)

    def items(self, now: float, *, words: bool = False) -> list[dict[str, Any]]:
        """The same conversation with tool events woven in."""
        return self._rows(self.entries, now, words)

    def _rows(self, entries: list[Utterance | dict[str, Any]], now: float, words: bool) -> list[dict[str, Any]]:
        """What was spoken by `now`, and events. Words that took no time get the time they would have taken."""
        rows: list[dict[str, Any]] = []
        each, audio = 1 / (self.pace or NOMINAL_PACE), 0.0
        for entry in entries:
            row = entry.row(now) if isinstance(entry, Utterance) else entry
            if words and isinstance(entry, Utterance) and row:
                row["words"] = _timed(row["content"], max(audio, entry.fragments[0].start - self.began), each)
                audio = row["words"][-1]["end"]
            rows += [row] if row else []
        return rows


def _words(text: str) -> list[str]:
    """The words of a text, each with the space before it."""
    return re.findall(r"\s*\S+", text)


def _timed(text: str, start: float, each: float) -> list[dict[str, Any]]:
    return [
        {"word": word, "start": round(start + place * each, 2), "end": round(start + (place + 0.9) * each, 2)}
        for place, word in enumerate(text.split())
    ]
