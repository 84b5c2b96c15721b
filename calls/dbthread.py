"""A thread with a database connection of its own, for work that must not wait in Django's shared one.
Runs one thing at a time, in order; what it is and how often it is tried again is decided by others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from django.db import Error, connection

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseThread:
    """Begins with its first work. A daemon: a query that hangs may not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises. After a database error the next work gets a new connection."""
        if self._thread.ident is None:
            self._thread.start()
        future: Future[T] = Future()
        self._jobs.put((future, lambda: work(*args, **kwargs)))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Ends the thread after the work it has; its connection is closed."""
        if self._thread.ident is not None:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                _settle(future, work)
        connection.close()


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except Error as error:
        connection.close()  # it may be broken, and would stay so
        future.set_exception(error)
    except BaseException as error:  # noqa: BLE001 - whoever waits for it decides
        future.set_exception(error)
    else:
        future.set_result(result)
