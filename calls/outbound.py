"""Frames to the platform as values (protocol.md section 3): exact types, one action, known ranges, or an error here.
A frame that breaks a rule cannot be made, since the platform would drop it in silence (1.7)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from agents.actions import Action, EndCall, PressDigits, Transfer
from calls.lenient import clean

# Above this a spoken fragment is split into several frames (protocol.md A23).
LONGEST_FRAGMENT = 2_000


class ConfigFlags(Struct, frozen=True, omit_defaults=True):
    """What the platform is asked to do (3.1); absent means off."""

    auto_reconnect: bool = False
    call_details: bool = False
    transcript_with_tool_calls: bool = False

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _exactly(bool, name, getattr(self, name))


class Config(Struct, frozen=True, tag_field="response_type", tag="config"):
    """Sent before anything else, once per socket (3.1)."""

    config: ConfigFlags


class Response(Struct, frozen=True, omit_defaults=True, tag_field="response_type", tag="response"):
    """A piece of an answer (3.2). Raises ValueError or TypeError rather than send what the platform would drop."""

    response_id: int
    content: str
    content_complete: bool
    no_interruption_allowed: bool = False
    end_call: bool = False
    transfer_number: str | UnsetType = UNSET
    show_transferee_as_caller: bool = False
    digit_to_press: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        _exactly(int, "response_id", self.response_id)
        _exactly(bool, "show_transferee_as_caller", self.show_transferee_as_caller)
        _check_speech(self)

    @property
    def action(self) -> Action | None:
        """What the platform does once the words are spoken, if anything."""
        return _action(self)


class AgentInterrupt(Struct, frozen=True, omit_defaults=True, tag_field="response_type", tag="agent_interrupt"):
    """Speech nobody asked for (3.4); `interrupt_id` is a counter of ours."""

    interrupt_id: int
    content: str
    content_complete: bool
    no_interruption_allowed: bool = False
    end_call: bool = False
    transfer_number: str | UnsetType = UNSET
    digit_to_press: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        _exactly(int, "interrupt_id", self.interrupt_id)
        _check_speech(self)

    @property
    def action(self) -> Action | None:
        """What the platform does once the words are spoken, if anything."""
        return _action(self)


class Pong(Struct, frozen=True, tag_field="response_type", tag="ping_pong"):
    """The echo of a `PingPong` (3.3, A3)."""

    timestamp: int


class AgentConfig(Struct, frozen=True):
    """Live settings with the ranges of 3.5; those left unset keep their value."""

    responsiveness: float | UnsetType = UNSET
    interruption_sensitivity: float | UnsetType = UNSET
    reminder_trigger_ms: int | UnsetType = UNSET
    reminder_max_count: int | UnsetType = UNSET

    def __post_init__(self) -> None:
        for name in ("responsiveness", "interruption_sensitivity"):
            _in_range(name, getattr(self, name), (int, float), 0, 1)
        _in_range("reminder_trigger_ms", self.reminder_trigger_ms, (int,), 1, None)
        _in_range("reminder_max_count", self.reminder_max_count, (int,), 0, None)

    def __bool__(self) -> bool:
        return any(getattr(self, name) is not UNSET for name in self.__struct_fields__)


class UpdateAgent(Struct, frozen=True, tag_field="response_type", tag="update_agent"):
    """Changes how the platform listens, at any time (3.5)."""

    agent_config: AgentConfig


class ToolCallInvocation(Struct, frozen=True, tag_field="response_type", tag="tool_call_invocation"):
    """A tool starts (3.6); `arguments` is the JSON text of an object."""

    tool_call_id: str
    name: str
    arguments: str

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _exactly(str, name, getattr(self, name))


class ToolCallResult(Struct, frozen=True, tag_field="response_type", tag="tool_call_result"):
    """A tool has finished (3.6); `successful` unset means "not reported"."""

    tool_call_id: str
    content: str
    successful: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        _exactly(str, "tool_call_id", self.tool_call_id)
        _exactly(str, "content", self.content)
        if self.successful is not UNSET:
            _exactly(bool, "successful", self.successful)


class Metadata(Struct, frozen=True, tag_field="response_type", tag="metadata"):
    """Anything for the browser of a web call (3.7)."""

    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        _exactly(dict, "metadata", self.metadata)


Speech = Response | AgentInterrupt
Outbound = Config | Response | Pong | AgentInterrupt | UpdateAgent | ToolCallInvocation | ToolCallResult | Metadata


def action_fields(action: Action | None) -> dict[str, Any]:
    """The fields of `Response` that carry an action."""
    match action:
        case None:
            return {}
        case EndCall():
            return {"end_call": True}
        case Transfer(number, show):
            return {"transfer_number": number, "show_transferee_as_caller": show}
        case PressDigits(digits):
            return {"digit_to_press": digits}


def pieces(text: str, longest: int = LONGEST_FRAGMENT) -> list[str]:
    """Text in fragments of at most `longest` characters, cut after a space where there is one (A23)."""
    found = []
    text = text if text.isascii() else clean(text)
    while len(text) > longest:
        cut = text.rfind(" ", 0, longest) + 1 or longest
        found.append(text[:cut])
        text = text[cut:]
    return [*found, text]


def _check_speech(frame: Speech) -> None:
    _exactly(str, "content", frame.content)
    _exactly(bool, "content_complete", frame.content_complete)
    _exactly(bool, "no_interruption_allowed", frame.no_interruption_allowed)
    _exactly(bool, "end_call", frame.end_call)
    actions = [frame.end_call, frame.transfer_number is not UNSET, frame.digit_to_press is not UNSET]
    if sum(actions) > 1:
        raise ValueError("one response carries at most one action (protocol.md A18)")
    if any(actions) and not frame.content_complete:
        raise ValueError("an action belongs on the final frame (protocol.md A19)")
    for name in ("transfer_number", "digit_to_press"):
        value = getattr(frame, name)
        if value is not UNSET and (type(value) is not str or not value):
            raise TypeError(f"{name} must be text that is not empty, got {value!r}")


def _action(frame: Speech) -> Action | None:
    if frame.end_call:
        return EndCall()
    if isinstance(frame.transfer_number, str):
        return Transfer(frame.transfer_number, getattr(frame, "show_transferee_as_caller", False))
    if isinstance(frame.digit_to_press, str):
        return PressDigits(frame.digit_to_press)
    return None


def _exactly(kind: type, name: str, value: object) -> None:
    if type(value) is not kind:
        raise TypeError(f"{name} must be {kind.__name__}, got {type(value).__name__}")


def _in_range(name: str, value: Any, kinds: tuple[type, ...], low: float, high: float | None) -> None:
    if value is UNSET:
        return
    if type(value) not in kinds:
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not value >= low or (high is not None and value > high):
        raise ValueError(f"{name} must be at least {low}{f' and at most {high}' if high is not None else ''}")
