"""Waiting for what another process does to a shared database, where there is no event to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], within: float = 15) -> None:
    """Asks again and again; an error when time is up."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s")
        time.sleep(0.05)
