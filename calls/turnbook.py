"""The turns of a call as they are asked for, answered, overtaken and settled, kept from the frames that go by.
Part of the notebook: in memory, never waits, decides nothing about what is said."""

from __future__ import annotations

import re
from statistics import median
from typing import Any

import msgspec
from msgspec import UNSET

from calls.notes import COMPLETED, CUT_OFF, FAILED, FELL_BACK, OPEN, SUPERSEDED, TIMED_OUT, TurnNote
from calls.protocol import AgentInterrupt, Response, ToolCallInvocation, ToolCallResult
from calls.transcript import Sent, unheard
from calls.turns import BEGIN, INTERRUPT, Turn

# Agents' words are looked for in this many of the newest turns.
RECENT = 20

_SENTENCE_END = re.compile(r"[.!?…](?:[\"'”’)]*)(?:\s|$)")


class TurnBook:
    """Turns by number, the newest last, and which of them have changed since the last page."""

    def __init__(self, turns: list[TurnNote] | None = None) -> None:
        self.turns = list(turns or [])
        self.socket = 0
        self._current: TurnNote | None = None
        self._dirty: dict[int, TurnNote] = {}

    # ------------------------------------------------------------------ asked

    def asked(self, turn: Turn, position: int, at: float) -> None:
        """A new turn is to be answered; the one before it, if unfinished, is superseded."""
        self.abandoned(at)
        self._current = self._begin(turn.response_id, turn.kind, position, at)

    def taken_up(self, turn: Turn, position: int, at: float) -> None:
        """A turn left over from an earlier socket goes on under its old number, or is only closed here (A5)."""
        for note in reversed(self.turns):
            if note.response_id == turn.response_id and note.kind == turn.kind:
                note.outcome, note.done = CUT_OFF if turn.complete else OPEN, None
                self._current = note
                self._touch(note)
                return
        self.asked(turn, position, at)

    def abandoned(self, at: float) -> None:
        """The caller, or an interrupt of ours, has gone over the turn that was being answered."""
        self._leave(SUPERSEDED, at)

    def cut_off(self, at: float) -> None:
        """The socket ended before the turn did."""
        self._leave(CUT_OFF, at)

    def _leave(self, outcome: str, at: float) -> None:
        if self._current is not None and self._current.outcome == OPEN:
            self._settle(self._current, outcome, at)

    # ------------------------------------------------------------------ answered

    def answered(self, frame: Response, position: int, at: float) -> bool:
        """A piece of an answer; whether it settled its turn."""
        note = self._answering(frame, position, at)
        if note is None:
            return False
        self._words(note, frame.content, at)
        note.protected = note.protected or frame.no_interruption_allowed
        if frame.content_complete:
            note.action = frame.action
            self._settle(note, COMPLETED if note.outcome == OPEN else note.outcome, at)
        return frame.content_complete

    def _answering(self, frame: Response, position: int, at: float) -> TurnNote | None:
        current = self._current
        if current is not None and current.response_id == frame.response_id and current.kind != INTERRUPT:
            return None if current.kind == BEGIN and current.done is not None else current
        if frame.response_id == 0 and not self.turns:
            self._current = self._begin(0, BEGIN, position, at)
            return self._current
        return None  # the empty id 0 of a reconnect answers nothing (A4)

    def interrupted(self, frame: AgentInterrupt, position: int, at: float) -> bool:
        """A piece of speech nobody asked for; whether it is over."""
        current = self._current
        if current is None or current.kind != INTERRUPT or current.response_id != frame.interrupt_id:
            self.abandoned(at)
            current = self._current = self._begin(frame.interrupt_id, INTERRUPT, position, at)
        self._words(current, frame.content, at)
        current.protected = frame.no_interruption_allowed
        if frame.content_complete:
            current.action = frame.action
            self._settle(current, COMPLETED, at)
        return frame.content_complete

    def tool_started(self, frame: ToolCallInvocation, at: float) -> None:
        """A tool of the turn being answered begins."""
        run = {"id": frame.tool_call_id, "name": frame.name, "arguments": frame.arguments, "started": at}
        if self._current is not None:
            self._current.tool_calls = [*self._current.tool_calls, run]
            self._touch(self._current)

    def tool_finished(self, frame: ToolCallResult, at: float) -> None:
        """A tool of the turn being answered is done."""
        successful = None if frame.successful is UNSET else frame.successful
        result = {"result": frame.content, "successful": successful, "finished": at}
        if self._current is not None:
            self._current.tool_calls = [
                {**run, **result} if run["id"] == frame.tool_call_id else run for run in self._current.tool_calls
            ]
            self._touch(self._current)

    def went(self, turn: Turn, outcome: str, error: str) -> None:
        """How the responder's part of a turn ended, where it did not simply complete."""
        note = self._current
        if note is not None and note.response_id == turn.response_id and note.outcome in (OPEN, COMPLETED):
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

    # ------------------------------------------------------------------ heard

    def recent(self) -> list[Sent]:
        """What was sent lately, to find agents' words in."""
        return [Sent(note.number, note.response_id, note.position, note.text) for note in self.turns[-RECENT:]]

    def heard(self, number: int, words: str) -> None:
        """What the transcript shows of a turn's words."""
        for note in self.turns[-RECENT:]:
            if note.number == number and note.heard != words:
                note.heard = words
                self._touch(note)

    # ------------------------------------------------------------------ saving

    @property
    def is_saved(self) -> bool:
        return not self._dirty

    def take(self) -> list[TurnNote]:
        """Copies of the turns that have changed since the last time."""
        changed, self._dirty = self._dirty, {}
        return [msgspec.structs.replace(note) for note in changed.values()]

    def put_back(self, taken: list[TurnNote]) -> None:
        """These could not be saved: their newest state waits for the next time."""
        numbers = {note.number for note in taken}
        self._dirty |= {note.number: note for note in self.turns if note.number in numbers}

    def sums(self) -> dict[str, Any]:
        """Sums over the turns, under the names of the call's columns."""
        asked = [note for note in self.turns if note.kind not in (BEGIN, INTERRUPT)]
        waits = [round((note.first_text - note.asked) * 1000) for note in asked if note.first_text]
        outcomes = [note.outcome for note in self.turns]
        return {
            "turn_count": len(asked),
            "reply_ms_median": round(median(waits)) if waits else None,
            "reply_ms_max": max(waits, default=None),
            "fallback_count": sum(outcomes.count(kind) for kind in (FAILED, TIMED_OUT, FELL_BACK)),
            "failed_count": outcomes.count(FAILED),
            "timed_out_count": outcomes.count(TIMED_OUT),
            "superseded_count": outcomes.count(SUPERSEDED),
        }

    def interruptions(self) -> int:
        """How many turns the caller cut short: the transcript holds less than was sent."""
        return sum(1 for note in self.turns if note.heard and unheard(note.text, note.heard))

    def _begin(self, response_id: int, kind: str, position: int, at: float) -> TurnNote:
        number = self.turns[-1].number + 1 if self.turns else 1
        note = TurnNote(number, self.socket, response_id, kind, at, position)
        self.turns.append(note)
        self._touch(note)
        return note

    def _words(self, note: TurnNote, text: str, at: float) -> None:
        if not text:
            return
        note.text += text
        if note.first_text is None:
            note.first_text = at
        if note.first_sentence is None and _SENTENCE_END.search(note.text):
            note.first_sentence = at
        self._touch(note)

    def _settle(self, note: TurnNote, outcome: str, at: float) -> None:
        note.outcome, note.done = outcome, at
        if note.first_sentence is None and note.text:
            note.first_sentence = at
        self._touch(note)

    def _touch(self, note: TurnNote) -> None:
        self._dirty[note.number] = note
