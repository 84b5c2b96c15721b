"""Closes calls whose process is gone: killed, or lost with its machine.
Runs with every recorder's heartbeat, at the first call of a process, and as a command."""

from __future__ import annotations

import logging
import os
import socket
from datetime import timedelta

from django.utils import timezone

from calls.models import Call, Turn

log = logging.getLogger("calls.sweeper")

# A call of this machine's own whose process does not exist any more need not wait for its heartbeat to age.
JUST_STARTED = timedelta(seconds=2)


def sweep() -> int:
    """Ends every call whose process is gone, as of when it was last alive; how many."""
    swept = [call for call in _orphans() if _end(call)]
    if swept:
        log.warning("Closed %d calls whose process is gone", len(swept))
    return len(swept)


def _orphans() -> list[Call]:
    abandoned = list(Call.objects.abandoned())
    here = Call.objects.fresh().filter(
        process__startswith=f"{socket.gethostname()[:60]}:", seen_at__lt=timezone.now() - JUST_STARTED
    )
    # processes first: they are few, while a busy one of this machine has a thousand calls
    dead = [process for process in here.order_by().values_list("process", flat=True).distinct() if not _runs(process)]
    return abandoned + list(here.filter(process__in=dead)) if dead else abandoned


def _runs(process: str) -> bool:
    """Whether a process of this machine still exists; a number that somebody else got since counts as running."""
    number = process.rsplit(":", 2)[1]
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True


def _end(call: Call) -> bool:
    ended = call.end(call.seen_at, by=Call.ClosedBy.SWEEPER, reason="its process is gone", socket=call.sockets)
    if ended:
        open_turns = Turn.objects.filter(call=call, outcome=Turn.Outcome.OPEN)
        open_turns.update(outcome=Turn.Outcome.CUT_OFF, done_at=call.seen_at)
    return ended
