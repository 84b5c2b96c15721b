"""Numbers, codes and actions as an operator reads them. Pure: values in, words out."""

from __future__ import annotations

import json
from typing import Any

# What the platform makes of a code that this side closed with (protocol.md 1.6).
UNEXPECTED = "unexpected to the platform: it ends the call with error_llm_websocket_runtime"
CLOSED_BY_US = {
    1000: "to the platform this is the agent hanging up",
    1005: "no code was given: the platform ends the call with error_llm_websocket_open",
    1007: "bad data: the platform ends the call with error_llm_websocket_corrupt_payload",
}
CLOSED_BY_PLATFORM = {
    1000: "the ordinary end of a call",
    1001: "the platform's end went away, which is an ordinary end",
    1005: "closed without a code, which is an ordinary end",
    1006: "the connection broke without a word",
}


def seconds(value: float | None) -> str:
    """A duration as m:ss, or h:mm:ss; a dash while it is not known."""
    if value is None:
        return "–"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def offset(value: float) -> str:
    """A moment of a call as m:ss.s after its start."""
    tenths = max(round(value * 10), 0)
    whole, tenth = divmod(tenths, 10)
    return f"{seconds(whole)}.{tenth}"


def ms(value: int | None) -> str:
    """Milliseconds; a dash where there are none."""
    return "–" if value is None else f"{value:,} ms"


def action(value: Any) -> str:
    """What the platform was asked to do after a reply, as the end of a sentence; empty for nothing."""
    match value:
        case None:
            return ""
        case {"type": "end_call"}:
            return "then hangs up"
        case {"type": "transfer", "number": number}:
            return f"then transfers to {number}"
        case {"type": "press_digits", "digits": digits}:
            return f"then presses {digits}"
    return f"then {plain(value)}"


def closed_by(who: str, code: int | None, reason: str) -> str:
    """Who closed a call, with which code and reason."""
    told = "" if code is None else f", code {code}"
    return f"{who or 'not known who'}{told}" + (f" ({reason})" if reason else "")


def closing(by: str, code: int | None) -> str:
    """What a close means to the platform, or meant to us; empty where nothing is known."""
    if by == "network":
        return "no close was seen: the platform dials again, at most 4 times, then error_llm_websocket_runtime"
    if by == "sweeper":
        return "the process that held the call vanished; this end was noticed later"
    if code is None:
        return ""
    if by == "server":
        return CLOSED_BY_US.get(code, UNEXPECTED)
    return CLOSED_BY_PLATFORM.get(code, "an unusual end: see the platform's own log of this call")


def plain(value: Any) -> str:
    """Any JSON value as text: strings as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
