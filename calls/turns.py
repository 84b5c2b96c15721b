"""What a call's rules deal in besides frames: a turn, a close, and what the next socket has to know.
Values without rules; session.py has those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from agents.actions import Action
from calls.protocol import CallObject, Items, Outbound, Transcript

if TYPE_CHECKING:
    from agents.settings import AgentSettings

BEGIN, RESPONSE, REMINDER, INTERRUPT = "begin", "response", "reminder", "interrupt"


class Close(Struct, frozen=True):
    """The socket is to be closed, which ends the call (protocol.md 1.6)."""

    code: int
    reason: str


Outgoing = Outbound | Close


class Turn(Struct, eq=False):
    """One request and the answer to it. Identity counts: a repeated id is another turn."""

    response_id: int
    kind: str
    transcript: Transcript = ()
    items: Items | None = None
    call: CallObject = CallObject()
    pending_action: Action | None = None
    protected: bool = False
    text: str = ""
    action: Action | None = None
    complete: bool = False
    inherited: bool = False

    @property
    def is_reminder(self) -> bool:
        """The caller has gone quiet: nudge, do not answer."""
        return self.kind == REMINDER

    @property
    def variables(self) -> dict[str, str]:
        """The call's dynamic variables, as text."""
        return self.call.variables


class Memory(Struct, frozen=True):
    """What a call's next socket has to know of its earlier ones (A4 to A6)."""

    settings: AgentSettings
    call: CallObject | None = None
    greeted: bool = False
    newest: Turn | None = None
    interrupts: int = 0
    pending_action: Action | None = None


class BadFrames(Struct, frozen=True):
    """What a frame that is none does to its call (A8): the code it is closed with, or text ignored."""

    code: int = 1002
    ignore_text: bool = False
