"""What is noted about a call before it is saved, as plain values. Moments are seconds since the epoch.
notebook.py fills them, ledger.py makes rows of them, recall.py reads them back."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from agents.actions import Action
from agents.settings import AgentSettings
from calls.protocol import CallObject, Utterance

OPEN, COMPLETED, SUPERSEDED, CUT_OFF = "open", "completed", "superseded", "cut_off"
FAILED, TIMED_OUT, FELL_BACK = "failed", "timed_out", "fell_back"


class TurnNote(Struct):
    """A turn so far; `position` is the transcript's length when asked."""

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


class UtteranceNote(Struct, gc=False):
    """An entry of the newest transcript; `turn` is the number of the turn an agent's words came from."""

    position: int
    said: Utterance
    first_seen: float
    changed: float
    turn: int | None = None


class EventNote(Struct, frozen=True, gc=False):
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


class Identity(Struct, frozen=True):
    """Whose call it is and what its details told, at the moment of a page."""

    live: bool
    settings: AgentSettings
    call: CallObject | None
    details: dict[str, Any]


class Counters(Struct):
    """What the call's row sums up."""

    pings: int = 0
    ping_gap_ms: int | None = None
    odd_frames: int = 0
    events_dropped: int = 0


class Past(Struct, frozen=True):
    """What the database knows of a call that comes back: its row, and what the sums go on from."""

    pk: int
    key: int | None
    attempt: int
    sockets: int
    started: float
    turns: list[TurnNote]
    turn_pks: dict[int, int]
    transcript: list[UtteranceNote]
    counters: Counters


class Backlog:
    """How many events wait in all notebooks together; over `limit` new ones are counted, not kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0
