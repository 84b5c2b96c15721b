"""The calls that this process holds, by call id, and those it held a moment ago.
A second socket finds its predecessor here (protocol.md A14); other processes are reached through the record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from calls.notebook import Notebook
from calls.turns import Memory

if TYPE_CHECKING:
    from calls.consumers import CallConsumer

# Longer than any socket counts as a redial (calls/recall.py), and than a record usually takes to be saved.
REMEMBERED_S = 60.0
LONGEST_MEMORY = 5_000


class Parting(Struct, frozen=True):
    """A call whose last socket here is gone; it may be back before its record is saved."""

    memory: Memory
    notebook: Notebook
    at: float


_live: dict[str, CallConsumer] = {}
_parted: dict[str, Parting] = {}


def find(call_id: str) -> CallConsumer | None:
    """The socket of a call that is live here."""
    return _live.get(call_id)


def here() -> int:
    """How many calls are live in this process."""
    return len(_live)


def by_agent() -> Mapping[int, int]:
    """How many of them each agent has."""
    return Counter(line.session.settings.pk or 0 for line in _live.values())


def enter(call_id: str, line: CallConsumer) -> None:
    """This socket has the call now."""
    _live[call_id] = line
    _parted.pop(call_id, None)


def leave(call_id: str, line: CallConsumer) -> bool:
    """This socket is gone; False when a newer one has taken the call over."""
    if _live.get(call_id) is not line:
        return False
    del _live[call_id]
    return True


def part(call_id: str, memory: Memory, notebook: Notebook) -> None:
    """Remembers a call whose socket has ended for a while."""
    now = time.monotonic()
    for old in [known for known, parting in _parted.items() if now - parting.at > REMEMBERED_S]:
        del _parted[old]
    while len(_parted) >= LONGEST_MEMORY:
        del _parted[next(iter(_parted))]
    _parted[call_id] = Parting(memory, notebook, now)


def parting(call_id: str) -> Parting | None:
    """What is remembered of a call that ended here lately."""
    found = _parted.get(call_id)
    return found if found and time.monotonic() - found.at <= REMEMBERED_S else None
