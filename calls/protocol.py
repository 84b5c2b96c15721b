"""The wire: `decode` what the platform sends, `encode` what is sent back. Tolerant in, strict out.
The frames themselves are in inbound.py and outbound.py; no rules about turns, no clock, no socket."""

from __future__ import annotations

import msgspec

from calls import lenient
from calls.inbound import (
    CallDetails,
    CallObject,
    Id,
    Inbound,
    Item,
    Items,
    Odd,
    PingPong,
    Received,
    ReminderRequired,
    Request,
    ResponseRequired,
    Transcript,
    UpdateOnly,
    Utterance,
)
from calls.outbound import (
    LONGEST_FRAGMENT,
    AgentConfig,
    AgentInterrupt,
    Config,
    ConfigFlags,
    Metadata,
    Outbound,
    Pong,
    Response,
    Speech,
    ToolCallInvocation,
    ToolCallResult,
    UpdateAgent,
    action_fields,
    pieces,
)

__all__ = [
    "LONGEST_FRAGMENT",
    "AgentConfig",
    "AgentInterrupt",
    "BadFrame",
    "CallDetails",
    "CallObject",
    "Config",
    "ConfigFlags",
    "Id",
    "Inbound",
    "Item",
    "Items",
    "Metadata",
    "Odd",
    "Outbound",
    "PingPong",
    "Pong",
    "Received",
    "ReminderRequired",
    "Request",
    "Response",
    "ResponseRequired",
    "Speech",
    "ToolCallInvocation",
    "ToolCallResult",
    "Transcript",
    "UpdateAgent",
    "UpdateOnly",
    "Utterance",
    "action_fields",
    "decode",
    "decode_outbound",
    "encode",
    "pieces",
]

_decoder: msgspec.json.Decoder[Inbound] = msgspec.json.Decoder(Inbound)
_encoder = msgspec.json.Encoder()
_outbound: msgspec.json.Decoder[Outbound] = msgspec.json.Decoder(Outbound)


class BadFrame(Exception):
    """What the platform sent is no frame at all: binary, empty, not JSON, or too large (protocol.md A8)."""

    def __init__(self, why: str, *, binary: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.binary = binary


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
        return _second_look(text)


def _second_look(text: str) -> Received:
    try:
        return lenient.read(text)
    except ValueError:
        raise BadFrame("text that is not JSON" if text else "empty text") from None


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def encode(frame: Outbound) -> str:
    """The frame as the text of one WebSocket message."""
    return _encoder.encode(frame).decode()


def decode_outbound(text: str | bytes) -> Outbound:
    """What a server sent, seen from the platform's side; raises msgspec.DecodeError when it breaks section 3."""
    return _outbound.decode(text)
