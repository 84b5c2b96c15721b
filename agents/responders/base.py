"""What every responder is: something that is asked for a turn and streams what to say.
Holds the events a reply is made of; knows nothing of sockets, deadlines or the record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from agents.actions import Action

if TYPE_CHECKING:
    from agents.settings import AgentSettings
    from calls.turns import Turn


class Text(Struct, frozen=True):
    """Words to speak, as they are generated; fragments carry their own spaces."""

    text: str


class Protect(Struct, frozen=True):
    """From here on the caller cannot talk over this reply (A20); yield it before the first text."""


class Done(Struct, frozen=True):
    """The end of the reply: its last words and what the platform does after them, both optional."""

    text: str = ""
    action: Action | None = None


class ToolStarted(Struct, frozen=True):
    """A tool begins to work; `arguments` is JSON text, `call_id` unique in the world."""

    call_id: str
    name: str
    arguments: str


class ToolFinished(Struct, frozen=True):
    """A tool is done; a failure is data, not an exception."""

    call_id: str
    content: str
    successful: bool = True


class Usage(Struct, frozen=True):
    """What the reply cost: the model's name and its tokens."""

    model: str
    input_tokens: int
    output_tokens: int


class ListenDifferently(Struct, frozen=True):
    """Changes how the platform listens, from now on (protocol.md 3.5); None keeps a value."""

    responsiveness: float | None = None
    interruption_sensitivity: float | None = None
    reminder_trigger_ms: int | None = None
    reminder_max_count: int | None = None


class ToBrowser(Struct, frozen=True):
    """Data for the page of a web call (protocol.md 3.7)."""

    metadata: dict[str, Any]


Event = Text | Done | Protect | ToolStarted | ToolFinished | Usage | ListenDifferently | ToBrowser


class Responder:
    """One way to answer. Built for each call from its agent's settings, asked once per turn.

    `reply` is an async generator. It is closed (GeneratorExit or CancelledError at its current
    await) as soon as the caller moves on, so whatever it holds open belongs in a `finally` or an
    `async with`. `Done` ends the reply, and so does returning: what follows is not read. Whatever
    it raises is logged and the agent's fallback text is said instead.
    """

    kind: ClassVar[str]
    label: ClassVar[str]

    def __init__(self, agent: AgentSettings) -> None:
        self.agent = agent

    def reply(self, turn: Turn) -> AsyncIterator[Event]:
        """Streams the answer to `turn`; `turn.pending_action` is an action that the caller talked over."""
        raise TypeError(f"{type(self).__name__} does not say how it replies")

    @classmethod
    def check(cls, settings: dict[str, Any]) -> dict[str, str]:
        """What is wrong with an agent's responder settings: field name to sentence, empty when all is well."""
        return {name: f"The {cls.label} responder has no setting “{name}”." for name in settings}
