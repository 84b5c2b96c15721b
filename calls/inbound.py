"""Frames from the platform as values (protocol.md section 2). What is optional there is optional here.
Only the shapes: protocol.py reads them from text, session.py knows what they mean."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct


class Utterance(Struct, frozen=True, gc=False):
    """One entry of a transcript (2.6). `words` and `metadata` stay undecoded until somebody asks."""

    role: str
    content: str = ""
    words: Raw = Raw()
    metadata: Raw = Raw()

    def alone(self) -> Utterance:
        """The same without holding the whole frame it came in: undecoded parts are views of that frame."""
        return Utterance(self.role, self.content, self.words.copy(), self.metadata.copy())

    def span(self) -> tuple[float | None, float | None]:
        """Seconds of audio since the call began at which it starts and ends; None where not told."""
        words = [word for word in _some(self.words, list, []) if isinstance(word, dict)]
        starts = [float(word["start"]) for word in words if _is_moment(word.get("start"))]
        ends = [float(word["end"]) for word in words if _is_moment(word.get("end"))]
        return min(starts, default=None), max(ends, default=None)

    def response_id(self) -> int | None:
        """The response the platform says these words came from, if it says so."""
        found = _some(self.metadata, dict, {}).get("response_id")
        return found if isinstance(found, int) and not isinstance(found, bool) else None


class Item(Struct, frozen=True, gc=False):
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


def _is_moment(value: Any) -> bool:
    """A number that every database takes for seconds of a call."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _some(raw: Raw, wanted: type, otherwise: Any) -> Any:
    """Undecoded JSON as a value, or `otherwise` when it is absent or of another type."""
    if not bytes(raw):
        return otherwise
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return otherwise  # it was let through undecoded, and need not be good
    return found if isinstance(found, wanted) else otherwise
