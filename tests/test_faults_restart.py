"""A server that is killed, or told to stop, in the middle of calls: nobody is greeted twice and no record is lost."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from calls.protocol import Config, ConfigFlags, Response
from tests.live import SCRIPTED, add_agents, played
from tests.locks import locked
from tests.phone import TestPhone, dial
from tests.recorded import SOON, calls, ended, pick, turns, utterances
from tests.servers import Daphne, Servers
from tests.waiting import until

ENV = {**SCRIPTED, **SOON}
GREETING, FALLBACK = "How may I help you?", "I am sorry, can you say that again?"

both = pytest.mark.parametrize("database", ["sqlite", "postgres"])


@pytest.fixture
def start(request: pytest.FixtureRequest, daphne: Servers, database: str) -> Any:
    if database == "postgres":
        request.getfixturevalue("postgres_url")
    return lambda **env: daphne(database=database, env={**ENV, **env})


def agent(server: Daphne, **settings: Any) -> str:
    """The URL of an agent that wants to be dialled again and greets at once."""
    return add_agents(server, steady={"responder": "scripted", "call_details": False, **settings})["steady"]


async def said(phone: TestPhone, text: str) -> None:
    while getattr(await phone.next_frame(), "content", "") != text:
        pass


async def killed(server: Daphne, daphne: Servers, phone: TestPhone) -> Daphne:
    """Kills the server, starts another one in its place, and dials again."""
    await asyncio.to_thread(server.kill9)
    assert (await phone.closed).code == 1006
    after = await asyncio.to_thread(daphne, database=server, env=ENV, port=server.port)
    await phone.reconnect()
    return after


def is_saved(server: Daphne, call_id: str, text: str) -> bool:
    return any(turn["text"] == text for call in calls(server, call_id) for turn in turns(server, call))


@both
@played
async def test_after_a_crash_in_mid_reply_the_reply_is_closed_and_the_call_goes_on(start: Any, daphne: Servers) -> None:
    server = start()
    async with dial(agent(server), "crash") as phone:
        await phone.greeting()
        await phone.say(">> done Yes.")
        await phone.ask(">> say We do. | hang")
        await said(phone, "We do. ")
        until(lambda: is_saved(server, "crash", "We do. "))
        await killed(server, daphne, phone)
        await phone.expect(Config(ConfigFlags(auto_reconnect=True)), Response(0, "", True), Response(2, "", True))
        await phone.quiet()
        await phone.expect_reply(">> done And more.", "And more.")
    call = ended(server, "crash", sockets=2)
    assert pick(call, "sockets", "attempt", "closed_by", "turn_count") == (2, 1, "platform", 3)
    assert len(calls(server, "crash")) == 1
    assert [pick(turn, "number", "socket", "response_id", "outcome", "text") for turn in turns(server, call)] == [
        (1, 1, 0, "completed", GREETING),
        (2, 1, 1, "completed", "Yes."),
        (3, 1, 2, "cut_off", "We do. "),
        (4, 2, 3, "completed", "And more."),
    ]
    assert [row["turn"] for row in utterances(server, call) if row["role"] == "agent"][:2] == [1, 2]


@pytest.mark.parametrize("database", ["sqlite"])
@played
async def test_after_a_crash_before_the_first_word_the_request_is_answered(start: Any, daphne: Servers) -> None:
    server = start()
    async with dial(agent(server, first_text_s=1), "unanswered") as phone:
        await phone.greeting()
        await phone.ask(">> hang")
        until(lambda: any(len(turns(server, call)) == 2 for call in calls(server, "unanswered")))
        await killed(server, daphne, phone)
        await phone.expect(Config(ConfigFlags(auto_reconnect=True)), Response(0, "", True), Response(1, FALLBACK, True))
    call = ended(server, "unanswered", sockets=2)
    assert [pick(turn, "response_id", "outcome", "text") for turn in turns(server, call)] == [
        (0, "completed", GREETING),
        (1, "timed_out", FALLBACK),
    ]


@both
@played
async def test_what_a_call_knew_of_its_caller_survives_a_crash(start: Any, daphne: Servers) -> None:
    """Nulls and odd types in the call object are the platform's own (protocol.md A13)."""
    server = start()
    details = {
        "retell_llm_dynamic_variables": {"customer_name": "Ines"},
        "from_number": None,
        "agent_version": "4",
        "metadata": ["a"],
    }
    async with dial(agent(server, call_details=True), "known", details=details) as phone:
        await phone.greeting()
        await phone.say(">> done Yes.")
        until(lambda: is_saved(server, "known", "Yes."))
        phone.details = None
        await killed(server, daphne, phone)
        assert await phone.next_frame() == Config(ConfigFlags(auto_reconnect=True, call_details=True))
        assert await phone.next_frame() == Response(0, "", True)
        await phone.expect_reply(">> variables", '[{"customer_name": "Ines"}, ["a"]]')
    call = ended(server, "known", sockets=2)
    assert pick(call, "sockets", "variables") == (2, {"customer_name": "Ines"})
    assert [turn["text"] for turn in turns(server, call)][:2] == [GREETING, "Yes."]


@pytest.mark.parametrize("database", ["postgres"])
@played
async def test_an_action_that_was_talked_over_survives_a_crash(start: Any, daphne: Servers) -> None:
    """protocol.md A16."""
    server = start()
    async with dial(agent(server), "pending") as phone:
        await phone.greeting()
        await phone.say(">> end Bye!")
        until(lambda: is_saved(server, "pending", "Bye!"))
        await killed(server, daphne, phone)
        await phone.expect_reply(">> pending", "pending EndCall()")


@pytest.mark.parametrize("database", ["postgres"])
def test_a_call_that_never_comes_back_is_ended_by_the_command(start: Any) -> None:
    server = start()
    lose(server, "lost")
    until(lambda: server.manage("sweep_calls").startswith("1 "))
    [call] = calls(server, "lost")
    assert pick(call, "status", "closed_by", "close_code") == ("ended", "sweeper", None)
    assert call["ended_at"] == call["seen_at"]
    assert [turn["outcome"] for turn in turns(server, call)] == ["completed", "cut_off"]
    assert server.manage("sweep_calls") == "0 calls closed\n"


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_call_that_never_comes_back_is_ended_by_the_next_server_at_its_start(start: Any, daphne: Servers) -> None:
    """Nobody has to call first."""
    server = start()
    lose(server, "orphan")
    after = daphne(database=server, env=ENV)
    call = ended(after, "orphan", within=20)
    assert pick(call, "closed_by", "sockets") == ("sweeper", 1)


def lose(server: Daphne, call_id: str) -> None:
    """A call in the middle of a reply, whose server is killed."""

    @played
    async def call() -> None:
        async with dial(agent(server), call_id) as phone:
            await phone.greeting()
            await phone.ask(">> say Wait. | hang")
            await said(phone, "Wait. ")
            until(lambda: is_saved(server, call_id, "Wait. "))
            server.kill9()

    call()


@both
@played
async def test_told_to_stop_it_drops_what_does_not_end_and_saves_everything(start: Any) -> None:
    """protocol.md A32: without a close frame, so that the platform dials again."""
    server = start(DRAIN_S="0.3")
    url = agent(server)
    async with AsyncExitStack() as lines:
        phones = [await lines.enter_async_context(dial(url, f"stopped-{number}")) for number in range(20)]
        await asyncio.gather(*(phone.say(">> done Yes.") for phone in phones))
        await asyncio.gather(*(phone.ask(">> say Wait. | hang") for phone in phones[10:]))
        await asyncio.gather(*(said(phone, "Wait. ") for phone in phones[10:]))
        code = await asyncio.to_thread(server.terminate)
        assert [await phone.closed for phone in phones] == [(1006, "")] * 20
    assert code == 0, server.log
    for number in range(20):
        [call] = calls(server, f"stopped-{number}")
        assert pick(call, "status", "closed_by") == ("ended", "network")
        outcomes = [pick(turn, "outcome", "text") for turn in turns(server, call)]
        greeted = [("completed", GREETING), ("completed", "Yes.")]
        assert outcomes == greeted + [("cut_off", "Wait. ")] * (number >= 10)


@both
@played
async def test_told_to_stop_while_the_database_is_locked_it_waits_and_saves(start: Any) -> None:
    server = start(DRAIN_S="0")
    async with dial(agent(server), "locked") as phone:
        await phone.greeting()
        until(lambda: calls(server, "locked"))
        with locked(server):
            await phone.say(">> done Yes.")
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            assert await phone.closed == (1006, "")
            await asyncio.wait([stopping], timeout=2)
        assert await stopping == 0, server.log
    [call] = calls(server, "locked")
    assert call["status"] == "ended"
    assert [turn["text"] for turn in turns(server, call)] == [GREETING, "Yes."]


@pytest.mark.parametrize("database", ["postgres"])
@played
async def test_told_to_stop_while_the_database_stays_locked_it_stops_all_the_same(start: Any) -> None:
    """Whoever supervises it would kill it; what is lost is said in the log."""
    server = start(DRAIN_S="0")
    async with dial(agent(server), "stuck") as phone:
        await phone.greeting()
        until(lambda: calls(server, "stuck"))
        with locked(server):
            await phone.say(">> done Yes.")
            began = time.monotonic()
            assert await asyncio.to_thread(server.terminate, 40) == 0, server.log
            assert time.monotonic() - began < 30
    assert "did not take the record of 1 calls" in server.log
