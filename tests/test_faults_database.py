"""A database or a Redis that hangs, stops or vanishes: callers notice nothing, and nothing is lost afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from calls.protocol import Response
from tests.live import SCRIPTED, add_agents, played
from tests.locks import locked
from tests.phone import TestPhone, dial
from tests.recorded import SOON, calls, ended, events, pick, turns
from tests.servers import RUNNING, Daphne, Servers, set_up
from tests.services import Service
from tests.waiting import until

ENV = {**SCRIPTED, **SOON}
AWAY_S = 5.0
LATE_MS = 200

GREETING = "How may I help you?"


async def talk(phone: TestPhone, until_then: float) -> tuple[int, float]:
    """Says something ten times a second; how often, and how long the slowest answer took, in ms."""
    said, slowest = 0, 0.0
    while time.monotonic() < until_then:
        said += 1
        reply = await phone.expect_reply(f">> say {said} | done Yes.", f"{said} Yes.")
        slowest = max(slowest, reply.done_ms or 0, await phone.ping())
        await asyncio.sleep(0.1)
    return said, slowest


def nothing_is_lost(server: Daphne, call_id: str, said: int) -> None:
    call = ended(server, call_id)
    assert pick(call, "turn_count", "sockets", "events_dropped", "ping_count") == (said, 1, 0, said)
    found = [pick(turn, "number", "outcome", "text") for turn in turns(server, call)]
    replies = [(number + 1, "completed", f"{number} Yes.") for number in range(1, said + 1)]
    assert found == [(1, "completed", GREETING), *replies]
    kinds = [event["kind"] for event in events(server, call)]
    assert kinds == [
        "socket opened",
        "response",
        *["response_required", "response", "response"] * said,
        "socket closed",
    ]


def agent(server: Daphne) -> str:
    plain = {"responder": "scripted", "auto_reconnect": False, "call_details": False}
    return add_agents(server, plain=plain)["plain"]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
@played
async def test_a_database_that_is_locked_delays_no_reply_and_loses_nothing(
    request: pytest.FixtureRequest, daphne: Servers, database: str
) -> None:
    if database == "postgres":
        request.getfixturevalue("postgres_url")
    server = daphne(database=database, env=ENV)
    url = agent(server)
    async with dial(url, "before") as before:
        await before.greeting()
        with locked(server):
            began = time.monotonic()
            async with dial(url, "during") as during:
                await during.expect_greeting(GREETING)
                assert time.monotonic() - began < 1.5  # the desk's patience is half a second
                both = [talk(phone, began + AWAY_S) for phone in (before, during)]
                (first, slow), (second, slower) = await asyncio.gather(*both)
    assert max(slow, slower) < LATE_MS
    nothing_is_lost(server, "before", first)
    nothing_is_lost(server, "during", second)


@pytest.fixture
def own(postgres_server: Service) -> Iterator[Daphne]:
    """A server whose PostgreSQL is its own."""
    set_up(postgres_server.url)
    server = Daphne(postgres_server.url, 0, ENV, ())
    server.start()
    yield server
    server.kill9()
    RUNNING.remove(server)


@pytest.mark.parametrize(("end", "away_s"), [("stop", AWAY_S), ("kill", 1.0)])
@played
async def test_a_database_that_is_away_costs_nothing(
    own: Daphne, postgres_server: Service, end: str, away_s: float
) -> None:
    url = agent(own)
    async with dial(url, "before") as before:
        await before.greeting()
        until(lambda: calls(own, "before"))
        await asyncio.to_thread(getattr(postgres_server, end))
        began = time.monotonic()
        async with dial(url, "during") as during:
            await during.expect_greeting(GREETING)
            talking = [asyncio.create_task(talk(phone, began + away_s + 1)) for phone in (before, during)]
            await asyncio.wait(talking, timeout=away_s)
            await asyncio.to_thread(postgres_server.start)
            (first, slow), (second, slower) = await asyncio.gather(*talking)
    assert max(slow, slower) < LATE_MS
    nothing_is_lost(own, "before", first)
    nothing_is_lost(own, "during", second)
    assert "The database is back after" in own.log


@played
async def test_a_call_dropped_while_the_database_is_away_goes_on_when_it_dials_again(
    own: Daphne, postgres_server: Service
) -> None:
    url = add_agents(own, steady={"responder": "scripted", "call_details": False})["steady"]
    async with dial(url, "dropped") as phone:
        await phone.greeting()
        until(lambda: calls(own, "dropped"))
        await asyncio.to_thread(postgres_server.stop)
        await phone.expect_reply(">> done Yes.", "Yes.")
        await phone.drop()
        await phone.reconnect()
        await phone.next_frame()
        assert await phone.next_frame() == Response(0, "", True)
        await phone.expect_reply(">> done And more.", "And more.")
        await asyncio.to_thread(postgres_server.start)
    call = ended(own, "dropped", sockets=2)
    assert pick(call, "sockets", "attempt", "turn_count") == (2, 1, 2)
    assert [turn["text"] for turn in turns(own, call)] == [GREETING, "Yes.", "And more."]


@played
async def test_a_redis_that_is_killed_ends_no_call(daphne: Servers, redis_server: Service) -> None:
    server = daphne(env={**ENV, "REDIS_URL": redis_server.url})
    url = agent(server)
    async with dial(url, "before") as before:
        await before.greeting()
        await asyncio.to_thread(redis_server.kill)
        began = time.monotonic()
        async with dial(url, "during") as during:
            await during.expect_greeting(GREETING)
            both = [talk(phone, began + 2) for phone in (before, during)]
            (first, slow), (second, slower) = await asyncio.gather(*both)
    assert max(slow, slower) < LATE_MS
    nothing_is_lost(server, "before", first)
    nothing_is_lost(server, "during", second)
