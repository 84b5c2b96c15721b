"""What is worth a second look about a call: each flag once, as a count for its badge and as a filter."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models import Q
from msgspec import Struct

from calls.models import Call

# Codes with which the platform ends a call in the ordinary way.
ORDINARY_CODES = (1000, 1001, 1005)


class Flag(Struct, frozen=True):
    """`count` is 0 when the call does not have it; `where` finds those for which it is not."""

    name: str
    label: str
    tone: str
    meaning: str
    count: Callable[[Call], int]
    where: Q


def closed_oddly(call: Call) -> bool:
    """Ended by somebody other than the platform, or by a code that a call does not end with."""
    if call.status == Call.Status.LIVE:
        return False
    return call.closed_by != Call.ClosedBy.PLATFORM or call.close_code not in ORDINARY_CODES


FLAGS = (
    Flag(
        "fallback", "Fallback", "warn", "The caller heard the fallback text instead of the responder.",
        lambda call: call.fallback_count, Q(fallback_count__gt=0),
    ),
    Flag(
        "error", "Error", "bad", "The responder failed.",
        lambda call: call.failed_count, Q(failed_count__gt=0),
    ),
    Flag(
        "timed_out", "Timed out", "bad", "The responder was too late.",
        lambda call: call.timed_out_count, Q(timed_out_count__gt=0),
    ),
    Flag(
        "interrupted", "Interrupted", "", "The caller talked over the agent, or went on before it answered.",
        lambda call: max(call.interrupted_count, call.superseded_count),
        Q(interrupted_count__gt=0) | Q(superseded_count__gt=0),
    ),
    Flag(
        "reconnected", "Reconnected", "warn", "The connection was lost and the platform dialled again.",
        lambda call: call.reconnects, Q(sockets__gt=1),
    ),
    Flag(
        "odd_close", "Odd close", "bad", "Not ended by the platform, or with an unusual code.",
        lambda call: int(closed_oddly(call)),
        Q(status=Call.Status.ENDED) & ~(
            Q(closed_by=Call.ClosedBy.PLATFORM) & Q(close_code__isnull=False, close_code__in=ORDINARY_CODES)
        ),
    ),
    Flag(
        "odd_frames", "Odd frames", "warn", "The platform sent something that this server does not know.",
        lambda call: call.odd_frames, Q(odd_frames__gt=0),
    ),
    Flag(
        "events_dropped", "Events dropped", "warn", "The record of this call has gaps.",
        lambda call: call.events_dropped, Q(events_dropped__gt=0),
    ),
)  # fmt: skip


class Badge(Struct, frozen=True):
    """A flag as it is shown."""

    text: str
    tone: str
    meaning: str


def badges(call: Call) -> list[Badge]:
    """The flags of a call, with how often where that is more than once."""
    counted = [(flag, flag.count(call)) for flag in FLAGS]
    return [
        Badge(f"{flag.label} ×{count}" if count > 1 else flag.label, flag.tone, flag.meaning)
        for flag, count in counted
        if count
    ]
