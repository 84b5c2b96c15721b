"""What is known of a call when its socket knocks: the roster, its earlier sockets, how many are live.
Asks the database beside the event loop and never for long; then what was known last has to do."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Mapping

from django.conf import settings
from django.db import Error
from msgspec import Struct

from agents.roster import Roster, read_roster
from agents.settings import AgentSettings
from calls.dbthread import DatabaseThread
from calls.recall import Recollection, live_elsewhere, recall
from calls.recorder import PROCESS

log = logging.getLogger("calls.desk")

# Without a database there is still an answer to a call, if nobody needs a key for it.
BUILT_IN = AgentSettings()


class Known(Struct, frozen=True):
    """What the desk can say about a knock; `fresh` is false when the database did not answer in time."""

    roster: Roster
    live_elsewhere: Mapping[int, int] = {}
    recollection: Recollection | None = None
    fresh: bool = True


class Desk:
    """Looks up many knocks at once: those that come while one look is under way share the next.

    A look begins after the knock that it answers, so a change saved before a call applies to it.
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.roster = Roster(default=BUILT_IN)
        self._asking: dict[str, asyncio.Future[Known]] = {}
        self._task: asyncio.Task[None] | None = None
        self._look_began = 0.0
        self._thread = DatabaseThread("desk")

    async def look_up(self, call_id: str) -> Known:
        """Answers within `patience_s` seconds, from the database if it is there."""
        answer = self._asking.setdefault(call_id, asyncio.get_running_loop().create_future())
        self._start()
        try:
            async with asyncio.timeout(self._patience()):
                return await asyncio.shield(answer)
        except TimeoutError:
            log.warning("The database did not answer in %.1f s; going by what was known last", self.patience_s)
        except Error as error:
            log.warning("The database cannot be asked; going by what was known last: %s", error)
        return Known(self.roster, fresh=False)

    async def learn(self) -> None:
        """Reads the roster before anybody knocks, so that a database that fails later has been asked once."""
        try:
            self.roster = await self._thread.run(read_roster)
        except Error as error:
            log.warning("The agents cannot be read yet: %s", error)

    def close(self) -> None:
        """Stops looking; knocks that still wait are answered from memory."""
        if self._task is not None:
            self._task.cancel()
        self._thread.close()

    def _patience(self) -> float:
        """A look that has been stuck for long already is not waited for again by every newcomer."""
        stuck = self._look_began and time.monotonic() - self._look_began > self.patience_s
        return 0.0 if stuck else self.patience_s

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look(), name="desk")

    async def _look(self) -> None:
        while self._asking:
            asking, self._asking = self._asking, {}
            self._look_began = time.monotonic()
            try:
                found = await self._thread.run(_ask, list(asking))
            except Error as error:
                _fail(asking, error)
            except Exception as error:
                # a fault of ours: those who wait are told, and the next look is made all the same
                log.exception("A look into the database failed")
                _fail(asking, Error(str(error)))
            else:
                self._answer(asking, found)
            finally:
                self._look_began = 0.0

    def _answer(self, asking: Mapping[str, asyncio.Future[Known]], found: _Found) -> None:
        self.roster = found.roster
        for call_id, answer in asking.items():
            if not answer.done():
                answer.set_result(Known(found.roster, found.live, found.recollections.get(call_id)))


class _Found(Struct, frozen=True):
    roster: Roster
    live: Mapping[int, int]
    recollections: Mapping[str, Recollection]


def _ask(call_ids: list[str]) -> _Found:
    """The queries of one look."""
    roster = read_roster()
    capped = any(agent.max_calls is not None for agent in roster.agents.values())
    return _Found(roster, live_elsewhere(PROCESS) if capped else {}, recall(call_ids))


def _fail(asking: Mapping[str, asyncio.Future[Known]], error: Exception) -> None:
    for answer in asking.values():
        if not answer.done():
            answer.set_exception(error)
            answer.exception()  # nobody may be waiting any more


_desks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Desk] = weakref.WeakKeyDictionary()


def current() -> Desk:
    """The desk of the running event loop: a server has one."""
    loop = asyncio.get_running_loop()
    if loop not in _desks:
        _desks[loop] = Desk(settings.LLM_LOOKUP_S)
    return _desks[loop]
