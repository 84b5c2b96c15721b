"""The wire as it is kept: every frame in order, transcripts as changes that can be replayed, no credential."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live import SCRIPTED, add_agents, played
from tests.phone import dial
from tests.recorded import SOON, ended, events, pick, turns, utterances
from tests.servers import Daphne, Servers


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, module_daphne: Servers) -> Daphne:
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    return module_daphne(database=request.param, env={**SCRIPTED, **SOON})


@pytest.fixture(scope="module")
def url(server: Daphne) -> str:
    return add_agents(server, scripted={"responder": "scripted", "transcript_with_tool_calls": True})["scripted"]


def replayed(found: list[dict[str, Any]], keep: str = "keep", then: str = "then") -> list[Any]:
    """The last transcript, made from the changes."""
    transcript: list[Any] = []
    for event in found:
        if event["direction"] == "in" and keep in event["body"]:
            transcript[event["body"][keep] :] = event["body"][then]
    return transcript


@played
async def test_every_frame_is_kept_in_its_order(server: Daphne, url: str) -> None:
    async with dial(url, "wire", details={"from_number": "+1503"}) as phone:
        await phone.greeting()
        await phone.ping()
        await phone.say("say We | done do.")
        await phone.update("Good", turntaking="user_turn")
        await phone.send_raw('{"interaction_type":"brand_new_kind"}')
        await phone.send_raw('{"interaction_type":"brand_new_kind"}')
        await phone.silence()
    found = events(server, ended(server, "wire"))
    assert [pick(event, "direction", "kind") for event in found] == [
        ("note", "socket opened"),
        ("out", "config"),
        ("out", "response"),
        ("in", "call_details"),
        ("in", "response_required"),
        ("out", "response"),
        ("out", "response"),
        ("in", "update_only"),
        ("note", "odd frame"),
        ("in", "reminder_required"),
        ("out", "response"),
        ("note", "socket closed"),
    ]
    moments = [event["at"] for event in found]
    assert moments == sorted(moments)
    bodies = [event["body"] for event in found]
    assert bodies[2] == {
        "response_type": "response", "response_id": 0, "content": "How may I help you?", "content_complete": True,
    }  # fmt: skip
    assert bodies[3]["call"]["from_number"] == "+1503"
    assert bodies[4] == {
        "response_id": 1,
        "keep": 0,
        "then": [{"role": "agent", "content": "How may I help you?"}, {"role": "user", "content": "say We | done do."}],
        "items_keep": 0,
        "items_then": [
            {"role": "agent", "content": "How may I help you?"},
            {"role": "user", "content": "say We | done do."},
        ],
    }
    assert pick(bodies[7], "turntaking", "keep") == ("user_turn", 2)
    assert bodies[8] == {"kind": "brand_new_kind", "why": "unknown interaction_type"}
    assert pick(bodies[11], "by", "code") == ("platform", 1000)


@played
async def test_the_transcript_can_be_replayed_from_its_changes(server: Daphne, url: str) -> None:
    async with dial(url, "replay", updates=True, words=True) as phone:
        await phone.greeting()
        for word in ("I", "want", "to", "ask"):
            await phone.update(word)
        await phone.say('>> say We rent bikes. | tool tc_r1 look {"a":1} yes | done They cost a lot.')
        await phone.interrupt(">> done Sorry.", heard="We rent")
        await phone.send_digits("42")
        await phone.update("Bye")
        last = [{"role": said["role"], "content": said["content"]} for said in phone.transcript]
        tools = [item.get("tool_call_id") or item.get("digit") for item in phone.conversation.items(phone.now())]
    call = ended(server, "replay")
    found = events(server, call)
    assert replayed(found) == last
    assert [{"role": row["role"], "content": row["text"]} for row in utterances(server, call)] == last
    items = replayed(found, "items_keep", "items_then")
    assert [item.get("tool_call_id") or item.get("digit") for item in items] == tools


@played
async def test_a_transcript_is_never_stored_whole(server: Daphne, url: str) -> None:
    """Else the size of a call's record would grow with the square of its length."""
    async with dial(url, "long") as phone:
        await phone.greeting()
        for number in range(60):
            await phone.update(f"and then number {number}")
            await phone.say(">> done Yes.")
    then = [len(event["body"]["then"]) for event in events(server, ended(server, "long")) if "then" in event["body"]]
    assert len(then) == 120
    assert max(then) <= 3


@played
async def test_the_access_token_is_in_no_column(server: Daphne, url: str) -> None:
    details = {"call_type": "web_call", "access_token": "sesame-4711", "direction": None, "metadata": {"kept": "here"}}
    async with dial(url, "web", details=details) as phone:
        await phone.greeting()
    call = ended(server, "web")
    stored = repr([call, turns(server, call), utterances(server, call), events(server, call)])
    assert "here" in stored
    assert "sesame" not in stored
    assert "sesame" not in server.log


@played
async def test_events_can_be_switched_off_and_everything_else_is_kept(module_daphne: Servers) -> None:
    server = module_daphne(env={"RECORD_EVENTS": "0"})
    async with dial(server.ws_url, "no-events", updates=True) as phone:
        await phone.greeting()
        await phone.say("Hello")
        await phone.ping()
    call = ended(server, "no-events")
    assert pick(call, "turn_count", "ping_count", "events_dropped") == (1, 1, 0)
    assert [turn["outcome"] for turn in turns(server, call)] == ["completed", "completed"]
    assert len(utterances(server, call)) == 3
    assert events(server, call) == []
