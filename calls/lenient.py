"""The second look at a frame that the strict decoder refused: keep all that can be understood.
Slow and rare; protocol.md sections 9.1, A10, A11 and A13 say what counts as what."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from calls.inbound import (
    CallDetails,
    CallObject,
    Item,
    Odd,
    PingPong,
    Received,
    ReminderRequired,
    ResponseRequired,
    UpdateOnly,
    Utterance,
)


def read(text: str) -> Received:
    """A frame as far as it can be understood, or an `Odd` that says why not; raises ValueError for what is no JSON."""
    try:
        frame = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(frame, dict):
        return Odd(type(frame).__name__, "not a JSON object")
    kind = frame.get("interaction_type")
    if not isinstance(kind, str):
        return Odd("no interaction_type", "interaction_type is missing or not a string")
    if kind not in _READERS:
        return Odd(clean(kind)[:60], "unknown interaction_type")
    return _READERS[kind](frame)


def _lenient_ping(frame: Mapping[str, Any]) -> Received:
    timestamp = frame.get("timestamp")
    if isinstance(timestamp, int) and not isinstance(timestamp, bool):
        return PingPong(timestamp)
    return Odd("ping_pong", "timestamp is missing or not an integer")


def _lenient_details(frame: Mapping[str, Any]) -> Received:
    call = frame.get("call")
    if not isinstance(call, dict):
        return Odd("call_details", "call is missing or not an object")
    return CallDetails(call_object(call))


def call_object(found: Mapping[str, Any]) -> CallObject:
    """A call object as the platform sent it, or as it was stored."""
    return _fields(CallObject, found)


def _lenient_update(frame: Mapping[str, Any]) -> Received:
    turntaking = frame.get("turntaking")
    return UpdateOnly(
        _entries(Utterance, frame.get("transcript")) or (),
        _entries(Item, frame.get("transcript_with_tool_calls")),
        clean(turntaking) if isinstance(turntaking, str) else None,
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


_READERS: dict[str, Callable[[Mapping[str, Any]], Received]] = {
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
        return Raw(msgspec.json.encode(clean(value)))
    return msgspec.convert(clean(value), wanted)


def clean(value: Any) -> Any:
    """Half a surrogate pair cannot be stored or sent; it becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [clean(entry) for entry in value]
    if isinstance(value, dict):
        return {clean(name): clean(entry) for name, entry in value.items()}
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
