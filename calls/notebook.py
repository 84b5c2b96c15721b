"""What has been noted about one call and is not saved yet: its turns, its transcript, its events.
Plain values in memory, never waits and never fails; recorder.py saves it, ledger.py knows the tables."""

from __future__ import annotations

import re
import time
from statistics import median
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from agents.actions import Action
from agents.settings import AgentSettings
from calls.protocol import (
    AgentInterrupt,
    CallDetails,
    CallObject,
    Item,
    Items,
    Odd,
    Outbound,
    PingPong,
    Received,
    ReminderRequired,
    Response,
    ResponseRequired,
    ToolCallInvocation,
    ToolCallResult,
    Transcript,
    UpdateOnly,
    Utterance,
)
from calls.session import BEGIN, INTERRUPT, Turn
from calls.transcript import Sent, origin, unchanged, unheard

OPEN, COMPLETED, SUPERSEDED, CUT_OFF = "open", "completed", "superseded", "cut_off"
FAILED, TIMED_OUT, FELL_BACK = "failed", "timed_out", "fell_back"

# Agents' words are looked for in this many of the newest turns.
RECENT_TURNS = 20

_SENTENCE_END = re.compile(r"[.!?…](?:[\"'”’)]*)(?:\s|$)")
_json = msgspec.json.Encoder()


class TurnNote(Struct):
    """A turn so far. Moments are seconds since the epoch; `position` is the transcript's length when asked."""

    number: int
    socket: int
    response_id: int
    kind: str
    asked: float
    position: int = 0
    first_text: float | None = None
    first_sentence: float | None = None
    done: float | None = None
    text: str = ""
    heard: str = ""
    outcome: str = OPEN
    protected: bool = False
    action: Action | None = None
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    tool_calls: list[dict[str, Any]] = []
    error: str = ""


class UtteranceNote(Struct):
    """An entry of the newest transcript; `turn` is the number of the turn an agent's words came from."""

    position: int
    said: Utterance
    first_seen: float
    changed: float
    turn: int | None = None


class EventNote(Struct, frozen=True):
    """One frame or note; `body` is JSON text."""

    at: float
    direction: str
    kind: str
    body: str


class Ending(Struct, frozen=True):
    """How the call's newest socket ended."""

    at: float
    by: str
    code: int | None
    reason: str


class Counters(Struct):
    """What the call's row sums up."""

    pings: int = 0
    ping_gap_ms: int | None = None
    odd_frames: int = 0
    events_dropped: int = 0
    interrupted: int = 0


class Past(Struct, frozen=True):
    """What the database knows of a call that comes back: its row, and what the sums go on from."""

    pk: int
    attempt: int
    sockets: int
    started: float
    turns: list[TurnNote]
    turn_pks: dict[int, int]
    transcript: list[UtteranceNote]
    counters: Counters


class Page(Struct):
    """What has changed since the last page, as copies: to be written in one go, or put back."""

    notebook: Notebook
    summary: bool
    turns: list[TurnNote]
    utterances: list[UtteranceNote]
    length: int | None
    events: list[EventNote]
    ending: Ending | None


class Backlog:
    """How many events wait in all notebooks together; over `limit` new ones are counted, not kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0


class Notebook:
    """The notes of one call in this process, over all its sockets here. Every method returns at once."""

    def __init__(
        self,
        call_id: str,
        settings: AgentSettings,
        *,
        process: str,
        backlog: Backlog | None = None,
        key: int | None = None,
        is_test: bool = False,
        keep_events: bool = True,
        past: Past | None = None,
        attempt: int = 1,
    ) -> None:
        self.call_id = call_id
        self.settings = settings
        self.process = process
        self.key = key
        self.is_test = is_test
        self.keep_events = keep_events
        self.backlog = backlog or Backlog(1_000_000)
        self._clock = time.time() - time.monotonic()

        self.pk = past.pk if past else None
        self.attempt = past.attempt if past else attempt
        self.socket = past.sockets if past else 0
        self.started = past.started if past else self.now()
        self.turns = list(past.turns) if past else []
        self.turn_pks = dict(past.turn_pks) if past else {}
        self.utterances = list(past.transcript) if past else []
        self.counters = past.counters if past else Counters()
        self.call: CallObject | None = None
        self.details: dict[str, Any] = {}
        self.ending: Ending | None = None
        self.live = False

        self._transcript: Transcript = tuple(note.said for note in self.utterances)
        self._items: Items = ()
        self._last_ping: float | None = None
        self._current: TurnNote | None = None
        self._odd: set[str] = set()
        self._events: list[EventNote] = []
        self._dirty_turns: dict[int, TurnNote] = {}
        self._dirty_from: int | None = None
        self._summary = False
        self._shrunk = False
        self._ended = False

    def now(self) -> float:
        """Seconds since the epoch by a clock that no time step moves during the call."""
        return self._clock + time.monotonic()

    # ------------------------------------------------------------------ sockets

    def opened(self, *, source: str) -> None:
        """Another socket of this call is in."""
        self.socket += 1
        self.live, self.ending, self._ended = True, None, False
        self._last_ping = None
        self._summary = True
        self.note("socket opened", {"socket": self.socket, "from": source})

    def closed(self, by: str, code: int | None, reason: str = "") -> None:
        """The call's newest socket is gone, and with it, for all that is known, the call."""
        at = self.now()
        self.live = False
        self.ending, self._ended = Ending(at, by, code, reason), True
        self._summary = True
        if self._current is not None and self._current.outcome == OPEN:
            self._settle(self._current, CUT_OFF, at)
        self._interruptions()
        self.note("socket closed", {"socket": self.socket, "by": by, "code": code, "reason": reason})

    def note(self, kind: str, body: dict[str, Any]) -> None:
        """Something that happened to the call and is no frame."""
        self._event(self.now(), "note", kind, _json.encode(body).decode())

    # ------------------------------------------------------------------ what comes in

    def received(self, frame: Received, text: str) -> None:
        """A frame of the platform's; `text` is the frame as it came."""
        at = self.now()
        match frame:
            case PingPong():
                self._ping(at)
            case UpdateOnly() | ResponseRequired() | ReminderRequired():
                self._spoken(frame, at)
            case CallDetails():
                self._details(frame, text, at)
            case Odd(kind, why):
                self._odd_frame(kind, why, at)

    def _ping(self, at: float) -> None:
        if self._last_ping is not None:
            gap = round((at - self._last_ping) * 1000)
            self.counters.ping_gap_ms = max(self.counters.ping_gap_ms or 0, gap)
        self._last_ping = at
        self.counters.pings += 1

    def _spoken(self, frame: UpdateOnly | ResponseRequired | ReminderRequired, at: float) -> None:
        kept = unchanged(self._transcript, frame.transcript)
        changed = frame.transcript[kept:]
        if changed or len(frame.transcript) != len(self._transcript):
            self._heard(kept, frame.transcript, at)
        body: dict[str, Any] = {}
        if isinstance(frame, UpdateOnly):
            kind = "update_only"
            if frame.turntaking:
                body["turntaking"] = frame.turntaking
        else:
            kind = "reminder_required" if isinstance(frame, ReminderRequired) else "response_required"
            body["response_id"] = frame.response_id
        body["keep"] = kept
        body["then"] = [{"role": said.role, "content": said.content} for said in changed]
        if frame.transcript_with_tool_calls is not None:
            body.update(self._tool_items(frame.transcript_with_tool_calls))
        self._event(at, "in", kind, _json.encode(body).decode())

    def _heard(self, kept: int, transcript: Transcript, at: float) -> None:
        """Keeps the newest transcript, and when each entry was first seen and last changed."""
        notes = self.utterances
        for position in range(kept, len(transcript)):
            said = transcript[position]
            first = notes[position].first_seen if position < len(notes) else at
            note = UtteranceNote(position, said, first, at)
            notes[position : position + 1] = [note]
        if len(transcript) < len(notes):
            del notes[len(transcript) :]
            self._shrunk = True
        self._transcript = transcript
        self._dirty_from = kept if self._dirty_from is None else min(self._dirty_from, kept)

    def _tool_items(self, items: Items) -> dict[str, Any]:
        kept = unchanged(self._items, items)
        self._items = items
        return {"items_keep": kept, "items_then": [_item(item) for item in items[kept:]]}

    def _details(self, frame: CallDetails, text: str, at: float) -> None:
        self.call, self.details = frame.call, redacted(text)
        self._summary = True
        self._event(at, "in", "call_details", _json.encode({"call": self.details}).decode())

    def _odd_frame(self, kind: str, why: str, at: float) -> None:
        self.counters.odd_frames += 1
        if kind in self._odd:
            return
        self._odd.add(kind)
        self._summary = True
        self._event(at, "note", "odd frame", _json.encode({"kind": kind, "why": why}).decode())

    def first_odd(self, kind: str) -> bool:
        """Whether this kind of odd frame has not been seen in this call yet."""
        return kind not in self._odd

    # ------------------------------------------------------------------ what goes out

    def asked(self, turn: Turn) -> None:
        """A new turn is to be answered; the one before it, if unfinished, is superseded."""
        at = self.now()
        self.abandoned()
        self._current = self._turn(turn.response_id, turn.kind, at)

    def abandoned(self) -> None:
        """The caller, or an interrupt of ours, has gone over the turn that was being answered."""
        if self._current is not None and self._current.outcome == OPEN:
            self._settle(self._current, SUPERSEDED, self.now())

    def taken_up(self, turn: Turn) -> None:
        """A turn left over from an earlier socket, which goes on under its old number."""
        for note in reversed(self.turns):
            if note.response_id == turn.response_id and note.kind == turn.kind:
                note.outcome, note.done = OPEN, None
                self._current = note
                self._touch(note)
                return
        self.asked(turn)

    def sent(self, frame: Outbound, text: str) -> None:
        """A frame to the platform; `text` is the frame as it goes out."""
        at = self.now()
        match frame:
            case Response():
                self._answered(frame, at)
            case AgentInterrupt():
                self._interrupted(frame, at)
            case ToolCallInvocation(tool_call_id, name, arguments):
                self._tool_started(tool_call_id, name, arguments, at)
            case ToolCallResult(tool_call_id, content, successful):
                self._tool_finished(tool_call_id, content, successful, at)
        kind = frame.__struct_config__.tag
        if kind != "ping_pong":
            self._event(at, "out", str(kind), text)

    def _answered(self, frame: Response, at: float) -> None:
        note = self._note_for(frame, at)
        if note is None:
            return
        self._words(note, frame.content, at)
        note.protected = note.protected or frame.no_interruption_allowed
        if frame.content_complete:
            note.action = frame.action
            self._settle(note, COMPLETED if note.outcome == OPEN else note.outcome, at)

    def _note_for(self, frame: Response, at: float) -> TurnNote | None:
        current = self._current
        if current is not None and current.response_id == frame.response_id and current.kind != INTERRUPT:
            return current
        if frame.response_id == 0 and not self.turns:
            return self._turn(0, BEGIN, at)
        return None  # the empty id 0 of a reconnect answers nothing (A4)

    def _interrupted(self, frame: AgentInterrupt, at: float) -> None:
        current = self._current
        if current is None or current.kind != INTERRUPT or current.response_id != frame.interrupt_id:
            self.abandoned()
            current = self._current = self._turn(frame.interrupt_id, INTERRUPT, at)
        self._words(current, frame.content, at)
        current.protected = frame.no_interruption_allowed
        if frame.content_complete:
            current.action = frame.action
            self._settle(current, COMPLETED, at)

    def _words(self, note: TurnNote, text: str, at: float) -> None:
        if not text:
            return
        note.text += text
        if note.first_text is None:
            note.first_text = at
        if note.first_sentence is None and _SENTENCE_END.search(note.text):
            note.first_sentence = at
        self._touch(note)

    def _tool_started(self, call_id: str, name: str, arguments: str, at: float) -> None:
        if self._current is None:
            return
        run = {"id": call_id, "name": name, "arguments": arguments, "started": at}
        self._current.tool_calls = [*self._current.tool_calls, run]
        self._touch(self._current)

    def _tool_finished(self, call_id: str, content: str, successful: Any, at: float) -> None:
        if self._current is None:
            return
        result = {
            "result": content,
            "successful": None if successful is UNSET else successful,
            "finished": at,
        }
        self._current.tool_calls = [
            {**run, **result} if run["id"] == call_id else run for run in self._current.tool_calls
        ]
        self._touch(self._current)

    # ------------------------------------------------------------------ how replies went

    def went(self, turn: Turn, outcome: str, error: str = "") -> None:
        """How the responder's part of a turn ended, where it did not simply complete."""
        note = self._current
        if note is None or note.response_id != turn.response_id or note.outcome not in (OPEN, COMPLETED):
            return
        note.outcome, note.error = outcome, error
        self._touch(note)

    def used(self, turn: Turn, model: str, input_tokens: int, output_tokens: int) -> None:
        """What the reply to a turn cost."""
        note = self._current
        if note is None or note.response_id != turn.response_id:
            return
        note.model = model
        note.input_tokens = (note.input_tokens or 0) + input_tokens
        note.output_tokens = (note.output_tokens or 0) + output_tokens
        self._touch(note)

    def _turn(self, response_id: int, kind: str, at: float) -> TurnNote:
        number = self.turns[-1].number + 1 if self.turns else 1
        note = TurnNote(number, self.socket, response_id, kind, at, len(self._transcript))
        self.turns.append(note)
        self._touch(note)
        return note

    def _settle(self, note: TurnNote, outcome: str, at: float) -> None:
        note.outcome, note.done = outcome, at
        if note.first_sentence is None:
            note.first_sentence = note.done if note.text else None
        self._touch(note)
        self._summary = True

    def _touch(self, note: TurnNote) -> None:
        self._dirty_turns[note.number] = note

    def _event(self, at: float, direction: str, kind: str, body: str) -> None:
        if not self.keep_events:
            return
        if self.backlog.waiting >= self.backlog.limit:
            self.counters.events_dropped += 1
            self._summary = True
            return
        self.backlog.waiting += 1
        self._events.append(EventNote(at, direction, kind, body))

    # ------------------------------------------------------------------ saving

    @property
    def is_saved(self) -> bool:
        """Nothing waits to be written."""
        return not (self._events or self._dirty_turns or self._summary or self._dirty_from is not None)

    def take(self) -> Page:
        """What has changed since the last page; the notebook counts as saved from here on."""
        utterances = self._changed_utterances()
        page = Page(
            self,
            self._summary,
            [msgspec.structs.replace(note) for note in self._dirty_turns.values()],
            utterances,
            len(self.utterances) if self._shrunk else None,
            self._events,
            self.ending if self._ended else None,
        )
        self._events, self._dirty_turns, self._dirty_from = [], {}, None
        self._summary = self._shrunk = self._ended = False
        return page

    def put_back(self, page: Page) -> None:
        """The page could not be written: its newest state and its events wait for the next one."""
        self._events = page.events + self._events
        for note in self.turns:
            if any(note.number == late.number for late in page.turns):
                self._dirty_turns[note.number] = note
        if page.utterances:
            first = page.utterances[0].position
            self._dirty_from = first if self._dirty_from is None else min(self._dirty_from, first)
        self._summary = self._summary or page.summary
        self._shrunk = self._shrunk or page.length is not None
        self._ended = self._ended or (page.ending is not None and self.ending is page.ending)

    def _changed_utterances(self) -> list[UtteranceNote]:
        if self._dirty_from is None:
            return []
        changed = self.utterances[self._dirty_from :]
        recent = [Sent(note.number, note.response_id, note.position, note.text) for note in self.turns[-RECENT_TURNS:]]
        for utterance in changed:
            if utterance.said.role == "agent":
                found = origin(utterance.said, utterance.position, recent)
                utterance.turn = found.number if found else None
        self._hear({note.turn for note in changed})
        return changed

    def _hear(self, numbers: set[int | None]) -> None:
        for note in self.turns[-RECENT_TURNS:]:
            if note.number not in numbers:
                continue
            heard = " ".join(said.said.content for said in self.utterances if said.turn == note.number)
            if heard != note.heard:
                note.heard = heard
                self._touch(note)

    def _interruptions(self) -> None:
        """How many turns the caller cut short: the transcript holds less than was sent."""
        self.counters.interrupted = sum(1 for note in self.turns if note.heard and unheard(note.text, note.heard))

    def summary(self) -> dict[str, Any]:
        """The sums on the call's row, under the names of its columns."""
        asked = [note for note in self.turns if note.kind not in (BEGIN, INTERRUPT)]
        waits = [round((note.first_text - note.asked) * 1000) for note in asked if note.first_text]
        outcomes = [note.outcome for note in self.turns]
        counters = self.counters
        return {
            "turn_count": len(asked),
            "reply_ms_median": round(median(waits)) if waits else None,
            "reply_ms_max": max(waits, default=None),
            "fallback_count": sum(outcomes.count(kind) for kind in (FAILED, TIMED_OUT, FELL_BACK)),
            "failed_count": outcomes.count(FAILED),
            "timed_out_count": outcomes.count(TIMED_OUT),
            "superseded_count": outcomes.count(SUPERSEDED),
            "interrupted_count": counters.interrupted,
            "ping_count": counters.pings,
            "ping_gap_ms": counters.ping_gap_ms,
            "odd_frames": counters.odd_frames,
            "events_dropped": counters.events_dropped,
        }


def redacted(text: str) -> dict[str, Any]:
    """The call object of a `call_details` frame without its credential (protocol.md 2.2)."""
    try:
        call = msgspec.json.decode(text).get("call")
    except (msgspec.DecodeError, UnicodeError, AttributeError):
        return {}
    return {name: value for name, value in call.items() if name != "access_token"} if isinstance(call, dict) else {}


def _item(item: Item) -> dict[str, Any]:
    return {
        name: getattr(item, name)
        for name in ("role", "content", "tool_call_id", "name", "arguments", "successful", "digit")
        if getattr(item, name) not in ("", None)
    }
