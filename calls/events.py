"""The raw events of a call, a page at a time, by id: a call may have ten thousand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils import timezone
from msgspec import Struct

from calls import words
from calls.models import Call, Event

PER_PAGE = 200


class EventRow(Struct, frozen=True):
    """An event as it is shown; `offset` counts from the call's start."""

    clock: str
    offset: str
    direction: str
    label: str
    kind: str
    body: str


def events_page(call: Call, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The events after the id `after`, or the last ones before the id `before`; one query."""
    after, before = _whole(asked.get("after")), _whole(asked.get("before"))
    events = Event.objects.filter(call=call)
    if before is not None:
        found = list(events.filter(pk__lt=before).order_by("-pk")[: PER_PAGE + 1])
        page = found[:PER_PAGE][::-1]
        return _page(call, page, earlier=len(found) > PER_PAGE, later=True)
    found = list(events.filter(pk__gt=after or 0).order_by("pk")[: PER_PAGE + 1])
    return _page(call, found[:PER_PAGE], earlier=bool(after), later=len(found) > PER_PAGE)


def _page(call: Call, events: list[Event], *, earlier: bool, later: bool) -> dict[str, Any]:
    return {
        "events": [_row(call, event) for event in events],
        "before": events[0].pk if events and earlier else None,
        "after": events[-1].pk if events and later else None,
    }


def _row(call: Call, event: Event) -> EventRow:
    return EventRow(
        f"{timezone.localtime(event.at):%H:%M:%S.%f}"[:-3],
        words.offset((event.at - call.started_at).total_seconds()),
        event.direction,
        {"in": "received", "out": "sent"}.get(event.direction, "note"),
        event.kind,
        event.body,
    )


def _whole(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 19 else None
