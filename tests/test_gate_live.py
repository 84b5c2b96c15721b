"""Who is let in by a real server: the address, forged headers, and how many calls at once (protocol.md A9, C2)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.live import add_agents, played
from tests.phone import dial, refusal
from tests.servers import Daphne, Servers

PLATFORM = "100.20.5.228"
STRANGER = "203.0.113.9"


@pytest.fixture(scope="module")
def guarded(module_daphne: Servers) -> Daphne:
    """Lets the platform in, behind a proxy on this machine, on URLs with a key."""
    return module_daphne(env={"LLM_ALLOWED_ADDRESSES": PLATFORM, "LLM_OPEN_URL": "0"})


@pytest.fixture(scope="module")
def url(guarded: Daphne) -> str:
    return add_agents(guarded, guarded={})["guarded"]


@pytest.fixture(scope="module")
def small(module_daphne: Servers) -> Daphne:
    return module_daphne(env={"LLM_MAX_CALLS": "3"})


@pytest.fixture(scope="module")
def narrow(module_daphne: Servers) -> str:
    """The URL of an agent that takes two calls at once, on a server that takes any number."""
    return add_agents(module_daphne(), narrow={"max_calls": 2})["narrow"]


def forwarded(*hops: str) -> dict[str, str]:
    return {"X-Forwarded-For": ", ".join(hops)}


@played
async def test_the_platform_comes_in_through_the_proxy(url: str) -> None:
    async with dial(url, headers=forwarded(PLATFORM)) as phone:
        await phone.expect_greeting("How may I help you?")


@pytest.mark.parametrize(
    "hops",
    [(), (STRANGER,), (PLATFORM, STRANGER), (PLATFORM, STRANGER, "127.0.0.1"), ("garbage",), (PLATFORM, "garbage")],
    ids=", ".join,
)
@played
async def test_everybody_else_is_refused_before_the_handshake_is_accepted(url: str, hops: tuple[str, ...]) -> None:
    assert await refusal(url, headers=forwarded(*hops) if hops else {}) == 403


@played
async def test_a_forwarded_address_counts_for_nothing_from_a_peer_that_is_no_proxy(module_daphne: Servers) -> None:
    server = module_daphne(env={"LLM_ALLOWED_ADDRESSES": PLATFORM, "TRUSTED_PROXIES": "10.0.0.1"})
    assert await refusal(server.ws_url, headers=forwarded(PLATFORM)) == 403


@played
async def test_the_bare_url_can_be_switched_off(guarded: Daphne) -> None:
    assert await refusal(guarded.ws_url, headers=forwarded(PLATFORM)) == 403
    assert await refusal(f"{guarded.ws_url}/kdeadbeef-wrong", headers=forwarded(PLATFORM)) == 403


@played
async def test_the_key_may_stand_in_the_query(guarded: Daphne, url: str) -> None:
    """protocol.md A1."""
    key = url.rpartition("/")[2]
    async with dial(f"{guarded.ws_url}?key={key}", headers=forwarded(PLATFORM)) as phone:
        await phone.expect_greeting("How may I help you?")
    assert await refusal(f"{guarded.ws_url}?key={key}x", headers=forwarded(PLATFORM)) == 403


@pytest.mark.parametrize(
    "call_id", ["c" * 256, "line\nbreak", "n\x00l", "\u2028"], ids=["long", "newline", "NUL", "U+2028"]
)
@played
async def test_a_call_id_that_no_log_or_column_can_hold_is_refused(small: Daphne, call_id: str) -> None:
    assert await refusal(small.ws_url, call_id) == 403


@played
async def test_a_full_server_refuses_the_next_call_and_takes_back_one_that_was_dropped(small: Daphne) -> None:
    async with AsyncExitStack() as lines:
        phones = [await lines.enter_async_context(dial(small.ws_url, f"full-{number}")) for number in range(3)]
        for phone in phones:
            await phone.greeting()
        assert await refusal(small.ws_url, "full-3") == 403
        await phones[0].drop()
        await phones[0].reconnect()
        await phones[0].say("Still here")
        # not even seen to be gone yet: the new socket takes its place
        async with dial(small.ws_url, "full-1", deviations=True) as again:
            await again.say("And here")
            assert await refusal(small.ws_url, "full-3") == 403
        await phones[2].hang_up()
        async with dial(small.ws_url, "full-4") as phone:
            await phone.expect_greeting("How may I help you?")


@played
async def test_many_knocks_at_once_do_not_slip_past_the_limit(module_daphne: Servers) -> None:
    server = module_daphne(env={"LLM_MAX_CALLS": "3"})
    async with AsyncExitStack() as lines:
        knocks = [lines.enter_async_context(dial(server.ws_url)) for _ in range(12)]
        found = await asyncio.gather(*knocks, return_exceptions=True)
        assert sum(not isinstance(outcome, BaseException) for outcome in found) == 3


@played
async def test_a_full_agent_refuses_the_next_call_and_takes_back_one_that_was_dropped(narrow: str) -> None:
    async with dial(narrow, "narrow-0") as first, dial(narrow, "narrow-1") as second:
        await first.greeting()
        await second.greeting()
        assert await refusal(narrow, "narrow-2") == 403
        await first.drop()
        await first.reconnect()
        await first.say("Still here")
        assert await refusal(narrow, "narrow-2") == 403
        async with dial(narrow.rpartition("/")[0], "not-narrow") as other:
            await other.expect_greeting("How may I help you?")
