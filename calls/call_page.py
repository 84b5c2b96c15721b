"""What the page of a call shows: a summary, the timeline, and the platform's details. Four queries,
however long the call; the raw events have a page of their own."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from msgspec import Struct

from calls import words
from calls.flags import badges
from calls.models import Call, Event, Turn, Utterance
from calls.timeline import TurnRow, timeline

# Notes are few; a call that has more is broken in a way that its raw events explain better.
MOST_NOTES = 500
MOST_TROUBLES = 20


def call_page(call: Call) -> dict[str, Any]:
    """Everything that the page of a call shows but its raw events."""
    turns = list(Turn.objects.filter(call=call).order_by("number"))
    said = list(Utterance.objects.filter(call=call).order_by("position"))
    notes = list(Event.objects.filter(call=call, direction=Event.Direction.NOTE).order_by("pk")[:MOST_NOTES])
    rows = timeline(call, turns, said, notes)
    return {
        "summary": summary(call),
        "badges": badges(call),
        "rows": rows,
        "troubles": [row for row in rows if isinstance(row, TurnRow) and row.tone in ("warn", "bad")][:MOST_TROUBLES],
        "is_live": call.status == Call.Status.LIVE,
        "variables": facts(call.variables),
        "metadata": facts(call.metadata),
        "details": facts(call.details),
        "settings": facts(call.agent_settings),
    }


class Fact(Struct, frozen=True):
    """A value of the summary, and what to know about it."""

    label: str
    value: str
    note: str = ""


def summary(call: Call) -> list[Fact]:
    """What an operator asks first about a call."""
    found = [
        Fact("Agent", str(call.agent) if call.agent else "deleted", f"key {call.key}" if call.key else ""),
        Fact("Direction", call.direction or call.call_type or "not told"),
        Fact("From", call.from_number or "–"),
        Fact("To", call.to_number or "–"),
        Fact("Started", f"{timezone.localtime(call.started_at):%Y-%m-%d %H:%M:%S}"),
        Fact("Duration", words.seconds(call.duration_s)),
        Fact("Turns", str(call.turn_count)),
        Fact("Median reply", words.ms(call.reply_ms_median), f"slowest {words.ms(call.reply_ms_max)}"),
        Fact("Pings", f"{call.ping_count:,}", f"worst gap {words.ms(call.ping_gap_ms)}"),
        Fact("Reconnects", str(call.reconnects)),
    ]
    if call.ended_at:
        found.append(Fact("Closed by", _closed_by(call), words.closing(call.closed_by, call.close_code)))
    if call.disconnection_reason:
        found.append(Fact("The platform's reason", call.disconnection_reason))
    return found


def facts(value: Any) -> list[tuple[str, str]]:
    """A JSON object as names and texts; anything else under one name."""
    if value in (None, {}, []):
        return []
    if not isinstance(value, dict):
        return [("value", words.plain(value))]
    return [(name, words.plain(entry)) for name, entry in value.items()]


def _closed_by(call: Call) -> str:
    return words.closed_by(call.get_closed_by_display(), call.close_code, call.close_reason)
