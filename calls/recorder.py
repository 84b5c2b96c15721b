"""Note now, save soon: the one task and the one thread that write live calls to the database.
Nobody on the voice path waits for it; what it cannot save it keeps and tries again."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from itertools import islice

from django.conf import settings
from django.db import Error

from calls import ledger
from calls.dbthread import DatabaseThread
from calls.notebook import Notebook, Page
from calls.notes import Backlog
from calls.sweeper import sweep

log = logging.getLogger("calls.recorder")

# Names this process in a call's row: who holds the newest socket. The sweeper reads it back.
PROCESS = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"

# Taking pages is the recorder's only work on the event loop: a thousand in one go would hold up every call.
PAGES_AT_ONCE = 50
HEARTBEAT_S = 10.0
FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 5.0
# The server gives it a little longer (project/serve.py).
CLOSE_WITHIN_S = 8.0


class Recorder:
    """Saves notebooks in batches: about `every_s` seconds after the fact, one transaction each."""

    def __init__(self, every_s: float, backlog: int) -> None:
        self.every_s = every_s
        self.backlog = Backlog(backlog)
        self.live: set[Notebook] = set()
        self._dirty: dict[Notebook, None] = {}
        self._writing: list[Page] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._failing_since: float | None = None
        self._retry_s = 0.0
        self._thread = DatabaseThread("recorder")

    # ------------------------------------------------------------------ for the consumers

    def start(self) -> None:
        """Begins to save, and to sweep up after processes that are gone; calls do it if the server has not."""
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._run(), name="recorder"),
            loop.create_task(self._beat(), name="recorder-heartbeat"),
        ]

    def follow(self, book: Notebook) -> None:
        """This call is live here from now on."""
        self.live.add(book)
        self.start()
        self.touch(book)

    def touch(self, book: Notebook) -> None:
        """The notebook has something new."""
        self._dirty[book] = None
        self._wake.set()

    def release(self, book: Notebook) -> None:
        """The call has no socket here any more; what is noted will still be saved."""
        self.live.discard(book)
        self.touch(book)

    async def saved(self, book: Notebook, within_s: float) -> bool:
        """Waits until all that is noted about a call is in the database; False when time is up."""
        return await self._until(lambda: book not in self._dirty and not self._is_writing(book), within_s)

    async def close(self, within_s: float = CLOSE_WITHIN_S) -> bool:
        """Saves everything there is, as far as the database lets it, and stops; False if something is lost."""
        saved = await self._until(lambda: not self._dirty and not self._writing, within_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._thread.close()
        if not saved:
            log.error("The database did not take the record of %d calls in time; it is lost", len(self._dirty))
            self._dirty = {}
        return saved

    # ------------------------------------------------------------------ the task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._gather()
            self._wake.clear()
            await self._save()

    async def _gather(self) -> None:
        """Lets a batch gather, unless somebody waits for it; a failing database is given its time."""
        if self._retry_s:
            await asyncio.sleep(self._retry_s)
            return
        try:
            async with asyncio.timeout(self.every_s):
                await self._hurry.wait()
        except TimeoutError:
            return

    async def _save(self) -> None:
        self._hurry.clear()
        self._take()
        try:
            await self._thread.run(ledger.write, self._writing)
        except Error as error:
            self._failed(error)
        except asyncio.CancelledError:
            self._put_back()
            raise
        except Exception:
            # whatever it is, it may cost this batch, but not the record of every call from here on
            log.exception("The record of %d calls could not be written; this part of it is lost", len(self._writing))
            self._succeeded()
        else:
            self._succeeded()
        self._writing = []
        self._tell()

    def _take(self) -> None:
        taken = list(islice(self._dirty, PAGES_AT_ONCE))
        for book in taken:
            del self._dirty[book]
        self._writing = [page for book in taken if (page := _page(book))]

    def _tell(self) -> None:
        """What is left of this batch follows at once; those who wait look again."""
        if self._dirty:
            self._wake.set()
            self._hurry.set()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _failed(self, error: Error) -> None:
        self._put_back()
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            log.warning("The database does not take the record, calls go on and it is kept: %s", error)
        self._retry_s = min(self._retry_s * 2 or FIRST_RETRY_S, LONGEST_RETRY_S)

    def _put_back(self) -> None:
        for page in self._writing:
            if page.saved:  # written by itself before the database went away
                self.backlog.waiting -= len(page.events)
                continue
            page.notebook.put_back(page)
            self.touch(page.notebook)
        self._writing = []

    def _succeeded(self) -> None:
        events = sum(len(page.events) for page in self._writing)
        self.backlog.waiting -= events
        if self._failing_since is not None:
            away = time.monotonic() - self._failing_since
            log.warning("The database is back after %.1f s; %d events were kept and are saved", away, events)
        self._failing_since, self._retry_s = None, 0.0

    async def _beat(self) -> None:
        """Says that this process's calls are alive, and closes those of processes that are gone."""
        while True:
            try:
                await self._thread.run(_beat, bool(self.live))
            except Error as error:
                log.debug("No heartbeat: %s", error)  # _failed has said it aloud
            except Exception:
                log.exception("The heartbeat failed; it goes on")  # without it, live calls would be swept
            await asyncio.sleep(HEARTBEAT_S)

    async def _until(self, done: Callable[[], bool], within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while not done():
                    self.start()
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiting.append(waiter)
                    self._hurry.set()
                    self._wake.set()
                    await waiter
        except TimeoutError:
            return False
        return True

    def _is_writing(self, book: Notebook) -> bool:
        return any(page.notebook is book for page in self._writing)

    def leftovers(self) -> list[Page]:
        """What is noted and not saved, for a process that ends without `close`."""
        return [*self._writing, *(book.take() for book in self._dirty)]


def _page(book: Notebook) -> Page | None:
    try:
        return book.take()
    except Exception:
        # a fault of ours in one call's notes must not end the recording of all the others
        log.exception("Call %s: its notes cannot be read; this part of its record is lost", book.call_id)
        return None


def _beat(has_calls: bool) -> None:
    if has_calls:
        ledger.alive(PROCESS)
    sweep()


_recorders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Recorder] = weakref.WeakKeyDictionary()


def current() -> Recorder:
    """The recorder of the running event loop: a server has one."""
    loop = asyncio.get_running_loop()
    if loop not in _recorders:
        _recorders[loop] = Recorder(settings.RECORD_EVERY_S, settings.RECORD_BACKLOG)
    return _recorders[loop]


async def close() -> None:
    """Saves everything and stops; for a server that is about to end."""
    loop = asyncio.get_running_loop()
    if loop in _recorders:
        await _recorders.pop(loop).close()


@atexit.register
def _last_chance() -> None:
    """A server that knows nothing of `close` still leaves a complete record."""
    pages: Sequence[Page] = [page for recorder in _recorders.values() for page in recorder.leftovers()]
    if not pages:
        return
    try:
        ledger.write(pages)
    except Error:
        log.exception("The record of %d calls could not be saved at exit", len(pages))
