"""What has been noted about one call and is not saved yet: its sockets, turns, transcript and events.
In memory, never waits and never fails; recorder.py saves it, ledger.py knows the tables."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec import Struct

from agents.settings import AgentSettings
from calls.notes import Backlog, Counters, Ending, EventNote, Identity, Past, TurnNote, UtteranceNote
from calls.protocol import (
    AgentInterrupt,
    CallDetails,
    CallObject,
    Odd,
    Outbound,
    PingPong,
    Received,
    ReminderRequired,
    Response,
    ResponseRequired,
    ToolCallInvocation,
    ToolCallResult,
    UpdateOnly,
)
from calls.transcriptbook import TranscriptBook
from calls.turnbook import TurnBook
from calls.turns import Turn

_json = msgspec.json.Encoder()


class Page(Struct):
    """What has changed since the last page, as copies: to be written in one go, or put back."""

    notebook: Notebook
    socket: int
    identity: Identity | None
    sums: dict[str, Any] | None
    turns: list[TurnNote]
    utterances: list[UtteranceNote]
    length: int | None
    events: list[EventNote]
    ending: Ending | None
    saved: bool = False


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
        self.turns = TurnBook(past.turns if past else None)
        self.turn_pks = dict(past.turn_pks) if past else {}
        self.transcript = TranscriptBook(past.transcript if past else None)
        self.counters = past.counters if past else Counters()
        self.call: CallObject | None = None
        self.details: dict[str, Any] = {}
        self.ending: Ending | None = None
        self.live = False

        self._last_ping: float | None = None
        self._odd: set[str] = set()
        self._events: list[EventNote] = []
        self._identity = self._sums = self._ended = False

    def now(self) -> float:
        """Seconds since the epoch by a clock that no time step moves during the call."""
        return self._clock + time.monotonic()

    # ------------------------------------------------------------------ sockets

    def opened(self, *, source: str) -> None:
        """Another socket of this call is in."""
        self.socket += 1
        self.turns.socket = self.socket
        self.live, self.ending, self._ended = True, None, False
        self._last_ping = None
        self._identity = True
        self.note("socket opened", {"socket": self.socket, "from": source})

    def closed(self, by: str, code: int | None, reason: str = "") -> None:
        """The call's newest socket is gone, and with it, for all that is known, the call."""
        at = self.now()
        self.live = False
        self.ending, self._ended = Ending(at, by, code, reason), True
        self._sums = True
        self.turns.cut_off(at)
        self.note("socket closed", {"socket": self.socket, "by": by, "code": code, "reason": reason})

    def note(self, kind: str, body: dict[str, Any]) -> None:
        """Something that happened to the call and is no frame."""
        self._event(self.now(), "note", kind, body)

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
        change = self.transcript.heard(frame.transcript, at)
        if frame.transcript_with_tool_calls is not None:
            change |= self.transcript.tools(frame.transcript_with_tool_calls)
        match frame:
            case UpdateOnly(turntaking=None):
                self._event(at, "in", "update_only", change)
            case UpdateOnly(turntaking=turntaking):
                self._event(at, "in", "update_only", {"turntaking": turntaking, **change})
            case ResponseRequired(response_id):
                self._event(at, "in", "response_required", {"response_id": response_id, **change})
            case ReminderRequired(response_id):
                self._event(at, "in", "reminder_required", {"response_id": response_id, **change})

    def _details(self, frame: CallDetails, text: str, at: float) -> None:
        self.call, self.details = frame.call, redacted(text)
        self._identity = True
        self._event(at, "in", "call_details", {"call": self.details})

    def _odd_frame(self, kind: str, why: str, at: float) -> None:
        self.counters.odd_frames += 1
        if self.first_odd(kind):
            self._odd.add(kind)
            self._sums = True
            self._event(at, "note", "odd frame", {"kind": kind, "why": why})

    def first_odd(self, kind: str) -> bool:
        """Whether this kind of odd frame has not been seen in this call yet."""
        return kind not in self._odd

    # ------------------------------------------------------------------ what goes out

    def asked(self, turn: Turn) -> None:
        """A turn is to be answered, a new one or one left over from an earlier socket."""
        begin = self.turns.taken_up if turn.inherited else self.turns.asked
        begin(turn, len(self.transcript), self.now())

    def sent(self, frame: Outbound, text: str) -> None:
        """A frame to the platform; `text` is the frame as it goes out."""
        at, position = self.now(), len(self.transcript)
        match frame:
            case Response():
                self._sums |= self.turns.answered(frame, position, at)
            case AgentInterrupt():
                self._sums |= self.turns.interrupted(frame, position, at)
            case ToolCallInvocation():
                self.turns.tool_started(frame, at)
            case ToolCallResult():
                self.turns.tool_finished(frame, at)
        kind = frame.__struct_config__.tag
        if kind != "ping_pong":
            self._keep(at, "out", str(kind), text)

    def went(self, turn: Turn, outcome: str, error: str = "") -> None:
        """How the responder's part of a turn ended, where it did not simply complete."""
        self.turns.went(turn, outcome, error)

    def used(self, turn: Turn, model: str, input_tokens: int, output_tokens: int) -> None:
        """What the reply to a turn cost."""
        self.turns.used(turn, model, input_tokens, output_tokens)

    def _event(self, at: float, direction: str, kind: str, body: dict[str, Any]) -> None:
        if self.keep_events:
            self._keep(at, direction, kind, _json.encode(body).decode())

    def _keep(self, at: float, direction: str, kind: str, body: str) -> None:
        if not self.keep_events:
            return
        if self.backlog.waiting >= self.backlog.limit:
            self.counters.events_dropped += 1
            self._sums = True
            return
        self.backlog.waiting += 1
        self._events.append(EventNote(at, direction, kind, body))

    # ------------------------------------------------------------------ saving

    @property
    def is_saved(self) -> bool:
        """Nothing waits to be written."""
        return not (self._events or self._identity or self._sums) and self.turns.is_saved and self.transcript.is_saved

    def take(self) -> Page:
        """What has changed since the last page; the notebook counts as saved from here on."""
        utterances, length = self.transcript.take(self.turns.recent() if not self.transcript.is_saved else ())
        for number in self.transcript.reheard(utterances):
            self.turns.heard(number, self.transcript.words_of(number))
        page = Page(
            self,
            self.socket,
            Identity(self.live, self.settings, self.call, self.details) if self._identity else None,
            self.sums() if self._sums else None,
            self.turns.take(),
            utterances,
            length,
            self._events,
            self.ending if self._ended else None,
        )
        self._events = []
        self._identity = self._sums = self._ended = False
        return page

    def put_back(self, page: Page) -> None:
        """The page could not be written: its newest state and its events wait for the next one."""
        self._events = page.events + self._events
        self.turns.put_back(page.turns)
        self.transcript.put_back(page.utterances, page.length)
        self._identity |= page.identity is not None
        self._sums |= page.sums is not None
        self._ended |= page.ending is not None and self.ending is page.ending

    def sums(self) -> dict[str, Any]:
        """The sums on the call's row, under the names of its columns."""
        counters = self.counters
        return {
            **self.turns.sums(),
            "interrupted_count": self.turns.interruptions(),
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
    if not isinstance(call, dict):
        return {}
    return {name: value for name, value in call.items() if name != "access_token"}
