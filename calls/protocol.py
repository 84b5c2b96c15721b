"""Frames of the LLM WebSocket as values: `decode` what the platform sends, `encode` what is sent back.
Tolerant in, strict out (protocol.md sections 2 and 3). Knows no rules about turns, no clock and no socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from agents.actions import Action, EndCall, PressDigits, Transfer

# Above this a spoken fragment is split into several frames (protocol.md A23).
LONGEST_FRAGMENT = 2_000


class BadFrame(Exception):
    """What the platform sent is no frame at all: binary, empty, not JSON, or too large (protocol.md A8)."""

    def __init__(self, why: str, *, binary: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.binary = binary


# --------------------------------------------------------------------------- platform to server


class Utterance(Struct, frozen=True):
    """One entry of a transcript (2.6). `words` and `metadata` stay undecoded until somebody asks."""

    role: str
    content: str = ""
    words: Raw = Raw()
    metadata: Raw = Raw()

    def span(self) -> tuple[float | None, float | None]:
        """Seconds of audio since the call began at which it starts and ends; None where not told."""
        words = [word for word in _some(self.words, list, []) if isinstance(word, dict)]
        starts = [word["start"] for word in words if _is_number(word.get("start"))]
        ends = [word["end"] for word in words if _is_number(word.get("end"))]
        return min(starts, default=None), max(ends, default=None)

    def response_id(self) -> int | None:
        """The response the platform says these words came from, if it says so."""
        found = _some(self.metadata, dict, {}).get("response_id")
        return found if isinstance(found, int) and not isinstance(found, bool) else None


class Item(Struct, frozen=True):
    """One entry of `transcript_with_tool_calls` (2.7): speech, a tool event, a key press, or something newer."""

    role: str
    content: str = ""
    words: Raw = Raw()
    metadata: Raw = Raw()
    tool_call_id: str = ""
    name: str = ""
    arguments: str = ""
    type: str = ""
    thought_signature: str = ""
    successful: bool | None = None
    digit: str = ""
    time_sec: float | None = None
    multimedia: Raw = Raw()


# an id that no database column holds is no id
Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Transcript = tuple[Utterance, ...]
Items = tuple[Item, ...]


class PingPong(Struct, frozen=True, tag_field="interaction_type", tag="ping_pong"):
    """Keepalive (2.1); `timestamp` is the platform's clock, ms since the epoch."""

    timestamp: int


class CallObject(Struct, frozen=True):
    """The part of the platform's call object (section 5) that is used; `access_token` is left out on purpose."""

    call_id: str = ""
    call_type: str = ""
    call_status: str = ""
    agent_id: str = ""
    agent_version: int | None = None
    agent_name: str = ""
    direction: str = ""
    from_number: str = ""
    to_number: str = ""
    metadata: Any = None
    retell_llm_dynamic_variables: dict[str, Any] | None = None
    uponai_dynamic_variables: dict[str, Any] | None = None
    dynamic_variables: dict[str, Any] | None = None
    custom_sip_headers: dict[str, Any] | None = None
    start_timestamp: int | None = None

    @property
    def variables(self) -> dict[str, str]:
        """Dynamic variables as text, from whichever key carries them (A28)."""
        found = self.retell_llm_dynamic_variables or self.uponai_dynamic_variables or self.dynamic_variables or {}
        return {name: _as_text(value) for name, value in found.items()}


class CallDetails(Struct, frozen=True, tag_field="interaction_type", tag="call_details"):
    """What the platform knows about the call (2.2), once per socket."""

    call: CallObject


class UpdateOnly(Struct, frozen=True, tag_field="interaction_type", tag="update_only"):
    """The transcript changed or the turn changed hands (2.3); never answered."""

    transcript: Transcript = ()
    transcript_with_tool_calls: Items | None = None
    turntaking: str | None = None


class ResponseRequired(Struct, frozen=True, tag_field="interaction_type", tag="response_required"):
    """The agent should speak (2.4)."""

    response_id: Id
    transcript: Transcript = ()
    transcript_with_tool_calls: Items | None = None


class ReminderRequired(Struct, frozen=True, tag_field="interaction_type", tag="reminder_required"):
    """The caller has gone quiet (2.5); shares the ids of `ResponseRequired`."""

    response_id: Id
    transcript: Transcript = ()
    transcript_with_tool_calls: Items | None = None


class Odd(Struct, frozen=True):
    """Valid JSON that is no frame known here (9.1): logged once per `kind` and call, otherwise ignored."""

    kind: str
    why: str


Request = ResponseRequired | ReminderRequired
Inbound = PingPong | CallDetails | UpdateOnly | ResponseRequired | ReminderRequired
Received = Inbound | Odd

_KINDS: dict[str, type[Inbound]] = {
    "ping_pong": PingPong,
    "call_details": CallDetails,
    "update_only": UpdateOnly,
    "response_required": ResponseRequired,
    "reminder_required": ReminderRequired,
}
_decoder: msgspec.json.Decoder[Inbound] = msgspec.json.Decoder(Inbound)


def decode(text: str | None, *, cap: int) -> Received:
    """One text frame as a value; `text` is None for a binary frame, `cap` is in bytes.

    Raises BadFrame for what is no JSON text at all; anything else that is wrong comes back as `Odd`.
    """
    if text is None:
        raise BadFrame("a binary frame", binary=True)
    if len(text) * 4 > cap and _size(text) > cap:
        raise BadFrame(f"a frame of {_size(text)} bytes, over the limit of {cap}")
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return _lenient(text)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _lenient(text: str) -> Received:
    """The slow second look at a frame the strict decoder refused: keep all that can be understood."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFrame("empty text" if not text else "text that is not JSON") from None
    if not isinstance(frame, dict):
        return Odd(type(frame).__name__, "not a JSON object")
    kind = frame.get("interaction_type")
    if not isinstance(kind, str):
        return Odd("no interaction_type", "interaction_type is missing or not a string")
    if kind not in _KINDS:
        return Odd(_clean(kind)[:60], "unknown interaction_type")
    return _LENIENT[kind](frame)


def _lenient_ping(frame: Mapping[str, Any]) -> Received:
    timestamp = frame.get("timestamp")
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        return PingPong(timestamp)
    return Odd("ping_pong", "timestamp is missing or not an integer")


def _lenient_details(frame: Mapping[str, Any]) -> Received:
    call = frame.get("call")
    if not isinstance(call, dict):
        return Odd("call_details", "call is missing or not an object")
    return CallDetails(_fields(CallObject, call))


def _lenient_update(frame: Mapping[str, Any]) -> Received:
    turntaking = frame.get("turntaking")
    return UpdateOnly(
        _entries(Utterance, frame.get("transcript")) or (),
        _entries(Item, frame.get("transcript_with_tool_calls")),
        _clean(turntaking) if isinstance(turntaking, str) else None,
    )


def _lenient_request(frame: Mapping[str, Any]) -> Received:
    kind: str = frame["interaction_type"]
    response_id = _whole_number(frame.get("response_id"))
    if response_id is None:
        return Odd(kind, "response_id is missing or not an integer")
    request = ResponseRequired if kind == "response_required" else ReminderRequired
    return request(
        response_id,
        _entries(Utterance, frame.get("transcript")) or (),
        _entries(Item, frame.get("transcript_with_tool_calls")),
    )


_LENIENT: dict[str, Callable[[Mapping[str, Any]], Received]] = {
    "ping_pong": _lenient_ping,
    "call_details": _lenient_details,
    "update_only": _lenient_update,
    "response_required": _lenient_request,
    "reminder_required": _lenient_request,
}

Kept = TypeVar("Kept", bound=Struct)


def _entries(kind: type[Kept], found: Any) -> tuple[Kept, ...] | None:
    """The entries of a list that are objects with a role; None when there is no list at all."""
    if not isinstance(found, list):
        return None
    rows = [row for row in found if isinstance(row, dict) and isinstance(row.get("role"), str)]
    return tuple(_fields(kind, row) for row in rows)


def _fields(kind: type[Kept], found: Mapping[str, Any]) -> Kept:
    """A struct from those keys that have the right type; null and the wrong type count as absent (A13)."""
    kept: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        value = found.get(field.name)
        if value is None:
            continue
        try:
            kept[field.name] = _field(field.type, value)
        except msgspec.ValidationError:
            continue
    return kind(**kept)


def _field(wanted: Any, value: Any) -> Any:
    if wanted is Raw:
        return Raw(msgspec.json.encode(_clean(value)))
    return msgspec.convert(_clean(value), wanted)


def _clean(value: Any) -> Any:
    """Half a surrogate pair cannot be stored or sent; it becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(entry) for name, entry in value.items()}
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return None
    return value


def _whole_number(value: Any) -> int | None:
    """An id; text of digits is accepted (A10), true and 3.0 are not."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(2**63) <= value < 2**63 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _some(raw: Raw, wanted: type, otherwise: Any) -> Any:
    """Undecoded JSON as a value, or `otherwise` when it is absent or of another type."""
    if not bytes(raw):
        return otherwise
    found = msgspec.json.decode(raw)
    return found if isinstance(found, wanted) else otherwise


# --------------------------------------------------------------------------- server to platform


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

_encoder = msgspec.json.Encoder()
_outbound: msgspec.json.Decoder[Outbound] = msgspec.json.Decoder(Outbound)


def encode(frame: Outbound) -> str:
    """The frame as the text of one WebSocket message."""
    return _encoder.encode(frame).decode()


def decode_outbound(text: str | bytes) -> Outbound:
    """What a server sent, seen from the platform's side; raises msgspec.DecodeError when it breaks section 3."""
    return _outbound.decode(text)


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
    text = text if text.isascii() else _clean(text)
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
