"""calls/desk.py: what a knock is told, from the database while it answers and from memory while it does not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from agents.models import Agent, ConnectionKey
from agents.settings import AgentSettings
from calls.desk import BUILT_IN, Desk, Known
from calls.models import Call
from tests.cast import make_agent, make_call, make_turn
from tests.live import played

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

PATIENCE_S = 0.3


@asynccontextmanager
async def a_desk() -> AsyncIterator[Desk]:
    desk = Desk(PATIENCE_S)
    try:
        yield desk
    finally:
        desk.close()


async def db(work: Callable[[], Any]) -> Any:
    """Queries of the test's own, away from the event loop."""

    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return await asyncio.to_thread(run)


@asynccontextmanager
async def stuck(desk: Desk) -> AsyncIterator[None]:
    """As long as this lasts the desk's thread waits for an answer to an earlier query."""
    over = threading.Event()
    busy = asyncio.ensure_future(desk._thread.run(over.wait))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        over.set()
        await busy


@asynccontextmanager
async def broken() -> AsyncIterator[None]:
    """Every look fails at once."""
    await db(lambda: rename("agents_agent", "agents_away"))
    try:
        yield
    finally:
        await db(lambda: rename("agents_away", "agents_agent"))


def rename(before: str, after: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {before} RENAME TO {after}")


@played
async def test_a_knock_is_told_of_agents_and_keys_as_they_are_now() -> None:
    agent = await db(lambda: make_agent(is_default=True, greeting="Hello."))
    _, text = await db(lambda: ConnectionKey.create(agent))
    async with a_desk() as desk:
        known = await desk.look_up("c1")
        assert (known.fresh, known.recollection) == (True, None)
        assert known.roster.default is not None
        assert known.roster.default.greeting == "Hello."
        found = known.roster.by_key(text)
        assert found is not None
        assert found[1].pk == agent.pk


@played
async def test_a_change_saved_before_the_knock_applies_to_it() -> None:
    agent = await db(lambda: make_agent(is_default=True))
    async with a_desk() as desk:
        for number in range(5):
            await db(lambda number=number: Agent.objects.filter(pk=agent.pk).update(greeting=f"Hello {number}."))
            known = await desk.look_up("c1")
            assert known.roster.default is not None
            assert known.roster.default.greeting == f"Hello {number}."


@played
async def test_knocks_that_come_together_share_one_look() -> None:
    asked: list[str] = []

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        asked.append(sql)
        return execute(sql, *rest)

    async with a_desk() as desk:
        await desk._thread.run(lambda: connection.execute_wrappers.append(count))
        known = await asyncio.gather(*(desk.look_up(f"c{number % 40}") for number in range(50)))
        await desk._thread.run(connection.execute_wrappers.clear)
    assert [found.fresh for found in known] == [True] * 50
    assert len([sql for sql in asked if sql.startswith("SELECT")]) == 3


@played
async def test_a_database_that_does_not_answer_is_waited_for_once_and_not_for_long() -> None:
    await db(lambda: make_agent(is_default=True, greeting="Hello."))
    async with a_desk() as desk:
        before = await desk.look_up("c1")
        async with stuck(desk):
            began = time.monotonic()
            found = await asyncio.gather(*(desk.look_up(f"c{number}") for number in range(20)))
            assert PATIENCE_S - 0.05 < time.monotonic() - began < PATIENCE_S + 0.3
            assert found == [Known(before.roster, fresh=False)] * 20
            began = time.monotonic()
            assert not (await desk.look_up("c99")).fresh
            assert time.monotonic() - began < 0.1
        await desk._thread.run(int)  # after the look that was stuck
        await asyncio.sleep(0)
        assert (await desk.look_up("c1")).fresh


@played
async def test_a_database_that_fails_is_not_waited_for() -> None:
    await db(lambda: make_agent(is_default=True, greeting="Hello."))
    async with a_desk() as desk:
        before = await desk.look_up("c1")
        async with broken():
            began = time.monotonic()
            assert await desk.look_up("c1") == Known(before.roster, fresh=False)
            assert time.monotonic() - began < PATIENCE_S
        assert (await desk.look_up("c1")).fresh


@played
async def test_without_a_database_from_the_start_there_is_the_built_in_agent() -> None:
    async with a_desk() as desk, broken():
        known = await desk.look_up("c1")
        assert (known.roster.default, known.roster.by_key("k-x"), known.fresh) == (BUILT_IN, None, False)


@played
async def test_a_call_that_is_live_is_remembered() -> None:
    agent = await db(make_agent)
    now = timezone.now()

    def save() -> None:
        settings = {"pk": agent.pk, "greeting": "Hello.", "of_an_older_version": 1}
        call = make_call(call_id="c1", status="live", sockets=2, seen_at=now, agent=agent, agent_settings=settings)
        make_turn(call, 1, kind="begin", response_id=0, text="Hello.")
        make_turn(call, 2, response_id=4, text="We do. ", outcome="cut_off")

    await db(save)
    async with a_desk() as desk:
        recollection = (await desk.look_up("c1")).recollection
    assert recollection is not None
    memory, past = recollection.memory, recollection.past
    assert memory is not None
    assert past is not None
    assert memory.settings == AgentSettings(pk=agent.pk, greeting="Hello.")
    assert memory.newest is not None
    assert (memory.greeted, memory.newest.response_id, memory.newest.text, memory.newest.complete) == (
        True,
        4,
        "We do. ",
        False,
    )
    assert (past.sockets, past.attempt, [note.number for note in past.turns]) == (2, 1, [1, 2])


@pytest.mark.parametrize(
    ("closed_by", "keepalive", "ago", "goes_on"),
    [
        ("network", False, 1, True),
        ("network", False, 90, False),
        ("sweeper", True, 30, True),
        ("platform", True, 5, True),
        ("platform", True, 30, False),
        ("platform", False, 1, False),
        ("server", True, 1, False),
    ],
)
@played
async def test_whether_an_ended_call_goes_on_depends_on_how_and_when_it_ended(
    closed_by: str, keepalive: bool, ago: int, goes_on: bool
) -> None:
    ended = timezone.now() - timedelta(seconds=ago)
    settings = {"auto_reconnect": keepalive}
    await db(lambda: make_call(call_id="c1", closed_by=closed_by, ended_at=ended, agent_settings=settings, attempt=3))
    async with a_desk() as desk:
        recollection = (await desk.look_up("c1")).recollection
    assert recollection is not None
    assert (recollection.attempts, recollection.memory is not None) == (3, goes_on)


@pytest.mark.parametrize(
    "odd",
    [
        {"details": {"call_id": "c1", "from_number": None, "agent_version": "4"}},
        {"agent_settings": {"reply_s": "soon"}},
        {"agent_settings": {"responder_settings": None, "max_calls": "7"}},
    ],
    ids=str,
)
@played
async def test_a_row_that_cannot_be_read_costs_no_other_call_its_memory(odd: dict[str, Any]) -> None:
    now = timezone.now()
    await db(lambda: make_call(call_id="odd", status="live", seen_at=now, **odd))
    await db(lambda: make_call(call_id="good", status="live", seen_at=now))
    async with a_desk() as desk:
        strange, good = await asyncio.gather(desk.look_up("odd"), desk.look_up("good"))
    assert (strange.fresh, good.fresh) == (True, True)
    assert strange.recollection is not None
    assert strange.recollection.attempts == 1
    assert good.recollection is not None
    assert good.recollection.memory is not None


@played
async def test_live_calls_are_counted_only_where_some_agent_has_a_limit() -> None:
    now = timezone.now()
    agent = await db(make_agent)
    for _ in range(2):
        await db(lambda: make_call(status="live", seen_at=now, agent=agent))
    await db(lambda: make_call(agent=agent))
    await db(lambda: make_call(status="live", agent=agent))  # of a process that fell silent long ago
    async with a_desk() as desk:
        assert (await desk.look_up("c1")).live_elsewhere == {}
        await db(lambda: Agent.objects.filter(pk=agent.pk).update(max_calls=5))
        assert (await desk.look_up("c1")).live_elsewhere == {agent.pk: 2}
        assert await db(Call.objects.live().count) == 3
