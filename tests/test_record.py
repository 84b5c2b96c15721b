"""What a call leaves in the database: its row, its turns, what was sent and what was heard, how it ended.
Over a real server, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live import SCRIPTED, add_agents, played
from tests.phone import DETAILS, dial
from tests.recorded import SOON, calls, ended, pick, turns, utterances
from tests.servers import Daphne, Servers
from tests.waiting import until

FALLBACK = "I am sorry, can you say that again?"
GREETING = "How may I help you?"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, module_daphne: Servers) -> Daphne:
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    return module_daphne(database=request.param, env={**SCRIPTED, **SOON})


@pytest.fixture(scope="module")
def url(server: Daphne) -> dict[str, str]:
    plain = {"responder": "scripted", "auto_reconnect": False, "call_details": False}
    return add_agents(
        server,
        plain=plain,
        quick={**plain, "first_text_s": 0.3, "reply_s": 1.0},
        steady={**plain, "auto_reconnect": True},
        detailed={"responder": "scripted"},
    )


def outcomes(server: Daphne, call: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [pick(turn, "number", "response_id", "kind", "outcome", "text") for turn in turns(server, call)]


@played
async def test_a_call_leaves_its_row(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["detailed"], "row", details=DETAILS, updates=True) as phone:
        await phone.expect_greeting(GREETING)
        await phone.say("done We do.")
        await phone.say("say We | done really do.")
        await phone.silence()
    call = ended(server, "row")
    agent = server.rows("SELECT id, name FROM agents_agent WHERE slug = 'detailed'")[0]
    assert pick(call, "attempt", "agent_id", "is_test", "status", "sockets") == (1, agent["id"], False, "ended", 1)
    assert pick(call, "close_code", "closed_by", "close_reason") == (1000, "platform", "")
    assert pick(call, "call_type", "direction") == ("phone_call", "inbound")
    assert pick(call, "from_number", "to_number") == ("+15035550142", "+15035550100")
    assert call["variables"] == {"customer_name": "Ines", "open_ticket": "HC-207"}
    assert call["metadata"] == {"crm_id": "C-881"}
    assert pick(call["details"], "call_id", "agent_id", "agent_version") == ("row", "agent_harbor01", 4)
    assert pick(call["agent_settings"], "pk", "name", "responder") == (agent["id"], "detailed", "scripted")
    assert pick(call, "turn_count", "failed_count", "timed_out_count", "fallback_count") == (3, 0, 0, 0)
    assert pick(call, "superseded_count", "interrupted_count", "odd_frames", "events_dropped") == (0, 0, 0, 0)
    assert 0 <= call["reply_ms_median"] <= call["reply_ms_max"] < 5000
    assert call["duration_s"] == pytest.approx(call["ended_at"] - call["started_at"], abs=0.01)


@played
async def test_every_turn_says_what_became_of_it(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["quick"], "outcomes") as phone:
        await phone.greeting()
        await phone.say("done Yes.")
        first = await phone.ask("say Sure, | dribble")
        while not phone.replies[first].text:
            await phone.next_frame()
        await phone.say(">> done Really.")
        await phone.say(">> crash no such file")
        await phone.say(">> say We | hang")
        await phone.say(">> hang")
        await phone.say(">> nothing")
        await phone.silence()
        await phone.ask(">> say Wait. | hang")
        while (await phone.next_frame()).content != "Wait. ":
            pass
    call = ended(server, "outcomes")
    found = outcomes(server, call)
    assert found[2][4].startswith("Sure, and")
    found[2] = (*found[2][:4], "")
    assert found == [
        (1, 0, "begin", "completed", GREETING),
        (2, 1, "response", "completed", "Yes."),
        (3, 2, "response", "superseded", ""),
        (4, 3, "response", "completed", "Really."),
        (5, 4, "response", "failed", FALLBACK),
        (6, 5, "response", "timed_out", f"We {FALLBACK}"),
        (7, 6, "response", "timed_out", FALLBACK),
        (8, 7, "response", "fell_back", FALLBACK),
        (9, 8, "reminder", "completed", "reminded"),
        (10, 9, "response", "cut_off", "Wait. "),
    ]
    assert [turn["error"] for turn in turns(server, call) if turn["error"]] == [
        "RuntimeError: no such file",
        "not finished within 1 s",
        "no first words within 0.3 s",
        "the responder had nothing to say",
    ]
    counted = pick(call, "turn_count", "failed_count", "timed_out_count", "fallback_count", "superseded_count")
    assert counted == (9, 1, 2, 4, 1)


@played
async def test_the_moments_of_a_turn_are_in_order(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["plain"], "moments") as phone:
        await phone.greeting()
        await phone.say("say One moment | say please. | say Yes. | done It is.")
        await phone.say("press 204#")
    call = ended(server, "moments")
    greeting, spoken, silent = turns(server, call)
    for turn in (greeting, spoken):
        moments = pick(turn, "asked_at", "first_text_at", "first_sentence_at", "done_at")
        assert moments == tuple(sorted(moments))
    assert call["started_at"] <= greeting["asked_at"]
    assert greeting["done_at"] <= spoken["asked_at"]
    assert silent["done_at"] <= call["ended_at"]
    assert pick(silent, "text", "first_text_at", "first_sentence_at") == ("", None, None)


@played
async def test_a_turn_keeps_its_action_protection_cost_and_tools(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["plain"], "extras") as phone:
        await phone.greeting()
        await phone.say('usage | tool tc_1 look {"a":1} found | usage | tool tc_2 book {} failed | done Yes.')
        await phone.say("protect | say Thanks. | transfer +15035550177 One moment.")
        await phone.say("end Bye!")
    greeting, tools, transfer, bye = turns(server, ended(server, "extras"))
    assert pick(greeting, "model", "input_tokens", "output_tokens", "tool_calls", "action") == (
        "",
        None,
        None,
        [],
        None,
    )
    assert pick(tools, "model", "input_tokens", "output_tokens", "protected") == ("small", 24, 6, False)
    assert [pick(run, "id", "name", "arguments", "result", "successful") for run in tools["tool_calls"]] == [
        ("tc_1", "look", '{"a":1}', "found", True),
        ("tc_2", "book", "{}", "failed", False),
    ]
    for run in tools["tool_calls"]:
        assert tools["asked_at"] <= run["started"] + 0.001
        assert run["started"] <= run["finished"] <= tools["done_at"] + 0.001
    assert pick(transfer, "protected", "action") == (
        True,
        {"type": "transfer", "number": "+15035550177", "show_transferee_as_caller": True},
    )
    assert pick(bye, "protected", "action") == (False, {"type": "end_call"})


@played
async def test_what_the_caller_talked_over_was_sent_and_not_heard(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["plain"], "talked-over") as phone:
        await phone.greeting()
        await phone.say("done We rent bikes. They cost thirty dollars a day.")
        await phone.interrupt(">> done Sorry, go on.", heard="We rent bikes. They cost")
        await phone.update("Thanks.")
    call = ended(server, "talked-over")
    greeting, cut, last = turns(server, call)
    assert pick(greeting, "text", "heard") == (GREETING, GREETING)
    assert pick(cut, "text", "heard", "outcome") == (
        "We rent bikes. They cost thirty dollars a day.",
        "We rent bikes. They cost",
        "completed",
    )
    assert pick(last, "text", "heard") == ("Sorry, go on.", "Sorry, go on.")
    assert call["interrupted_count"] == 1


@played
async def test_utterances_have_their_place_in_the_audio_and_the_turn_they_came_from(
    server: Daphne, url: dict[str, str]
) -> None:
    async with dial(url["plain"], "spoken", words=True) as phone:
        await phone.greeting()
        await phone.say("say We do. | done Thirty dollars a day.")
        await phone.update("Great, that is all.")
        spoken = phone.transcript
    found = utterances(server, ended(server, "spoken"))
    assert [pick(row, "position", "role", "text", "start_s", "end_s", "turn") for row in found] == [
        (
            position,
            said["role"],
            said["content"],
            said["words"][0]["start"],
            said["words"][-1]["end"],
            {0: 1, 2: 2}.get(position),
        )
        for position, said in enumerate(spoken)
    ]
    assert [row["first_seen_at"] <= row["changed_at"] for row in found] == [True] * 4


@pytest.mark.parametrize(
    ("ending", "recorded"),
    [
        (lambda phone: phone.hang_up(1000), (1000, "platform", "")),
        (lambda phone: phone.hang_up(1001), (1001, "platform", "")),
        (lambda phone: phone.hang_up(4000, "odd"), (4000, "platform", "")),
        (lambda phone: phone.drop(), (1006, "network", "")),
        (lambda phone: phone.send_raw("hello"), (1002, "server", "Cannot parse incoming message.")),
        (lambda phone: phone.send_raw(b"\0"), (1002, "server", "Cannot find corresponding Retell LLM.")),
    ],
    ids=["hung up", "went away", "odd code", "dropped", "bad text", "binary"],
)
@played
async def test_the_row_says_who_ended_the_call_and_with_which_code(
    request: pytest.FixtureRequest, server: Daphne, url: dict[str, str], ending: Any, recorded: tuple[Any, ...]
) -> None:
    call_id = f"ending-{request.node.callspec.id}"
    async with dial(url["plain"], call_id, deviations=True) as phone:
        await phone.greeting()
        await ending(phone)
        await phone.closed
    assert pick(ended(server, call_id), "close_code", "closed_by", "close_reason") == recorded


@played
async def test_a_reconnect_goes_on_in_the_same_row(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["steady"], "reconnected") as phone:
        await phone.greeting()
        until(lambda: turns(server, calls(server, "reconnected")[0]) if calls(server, "reconnected") else [])
        [greeted] = turns(server, calls(server, "reconnected")[0])
        await phone.drop()
        await phone.reconnect()
        await phone.say(">> done Yes.")
        await phone.ask(">> say We do. | hang")
        while getattr(await phone.next_frame(), "content", "") != "We do. ":
            pass
        await phone.drop()
        await phone.reconnect()
        await phone.say(">> done And more.")
    call = ended(server, "reconnected", sockets=3)
    assert [row["attempt"] for row in calls(server, "reconnected")] == [1]
    assert pick(call, "sockets", "turn_count", "close_code", "closed_by") == (3, 3, 1000, "platform")
    found = [pick(turn, "number", "socket", "response_id", "outcome", "text") for turn in turns(server, call)]
    assert found == [
        (1, 1, 0, "completed", GREETING),
        (2, 2, 1, "completed", "Yes."),
        (3, 2, 2, "cut_off", "We do. "),
        (4, 3, 3, "completed", "And more."),
    ]
    assert turns(server, call)[0]["done_at"] == greeted["done_at"]


@played
async def test_an_id_used_again_after_a_clean_end_is_another_call(server: Daphne, url: dict[str, str]) -> None:
    for attempt in (1, 2, 3):
        async with dial(url["plain"], "again") as phone:
            await phone.expect_greeting(GREETING)
            await phone.say(f"done {attempt}")
        call = ended(server, "again", attempt)
        assert pick(call, "attempt", "sockets", "turn_count") == (attempt, 1, 1)
        assert outcomes(server, call)[1] == (2, 1, "response", "completed", str(attempt))
    assert len(calls(server, "again")) == 3


@played
async def test_pings_are_counted_with_the_worst_gap_between_them(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["plain"], "pinged") as phone:
        await phone.greeting()
        for _ in range(5):
            await phone.ping()
    call = ended(server, "pinged")
    assert call["ping_count"] == 5
    assert 0 <= call["ping_gap_ms"] < 5000
    assert server.rows("SELECT kind FROM calls_event WHERE call_id = %s AND kind LIKE %s", call["id"], "%ping%") == []
