"""A record survives whatever a peer writes into it, and costs no other call its own. PostgreSQL takes no NUL in text,
nothing takes half a surrogate pair, and no column takes everything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calls.protocol import Response
from tests.live import SCRIPTED, add_agents, played
from tests.phone import dial
from tests.recorded import SOON, calls, ended, events, pick, turns, utterances
from tests.servers import Daphne, Servers


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, module_daphne: Servers) -> Daphne:
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    return module_daphne(database=request.param, env={**SCRIPTED, **SOON})


@pytest.fixture(scope="module")
def url(server: Daphne) -> str:
    return add_agents(server, detailed={"responder": "scripted"})["detailed"]


WORDS = {
    "NUL": ("a\x00b", "a\ufffdb"),
    "emoji": ("👩‍👩‍👧 🚲 é", "👩‍👩‍👧 🚲 é"),
    "markup": ("<script>alert(1)</script> & 'quoted'; DROP TABLE calls_call; --", None),
    "long": ("word " * 20_000, None),
    "right to left": ("\u202eabc שלום", None),
    "percent": ("100%s {} {{name}} %(x)s \\u0000", None),
}


@pytest.mark.parametrize("name", WORDS)
@played
async def test_what_the_caller_said_is_kept(server: Daphne, url: str, name: str) -> None:
    said, kept = WORDS[name]
    async with dial(url, f"said-{name}") as phone:
        await phone.greeting()
        await phone.say(f"{said} >> done Yes.")
    call = ended(server, f"said-{name}")
    assert utterances(server, call)[1]["text"] == f"{kept or said} >> done Yes."
    assert [turn["outcome"] for turn in turns(server, call)] == ["completed", "completed"]


@pytest.mark.parametrize("name", WORDS)
@played
async def test_what_the_agent_said_is_kept(server: Daphne, url: str, name: str) -> None:
    said, kept = WORDS[name]
    said, kept = said[:5000], kept and kept[:5000]
    async with dial(url, f"sent-{name}") as phone:
        await phone.greeting()
        await phone.expect_reply(f">> done x{said}", f"x{said}".strip() if said.endswith(" ") else f"x{said}")
    call = ended(server, f"sent-{name}")
    assert turns(server, call)[1]["text"] == f"x{kept or said}".strip()


@played
async def test_half_a_surrogate_pair_becomes_a_question_mark(server: Daphne, url: str) -> None:
    """Python strings can hold one, JSON can spell one, and no database takes it."""
    transcript = r'[{"role":"user","content":"a\ud83db >> done c\udeadd","words":[{"word":"\ud800","start":1.5}]}]'
    call_object = r'{"from_number":"\ud800","metadata":{"\udfff":["\ud800"]},"call_type":"phone_call"}'
    async with dial(url, "half", details=None, deviations=True) as phone:
        await phone.greeting()
        await phone.send_raw(f'{{"interaction_type":"call_details","call":{call_object}}}')
        await phone.send_raw(f'{{"interaction_type":"response_required","response_id":1,"transcript":{transcript}}}')
        while await phone.next_frame() != Response(1, "c?d", True):
            pass
    call = ended(server, "half")
    assert pick(call, "from_number", "call_type", "metadata") == ("?", "phone_call", {"?": ["?"]})
    assert pick(utterances(server, call)[0], "text", "start_s") == ("a?b >> done c?d", 1.5)


@played
async def test_errors_of_a_responder_are_kept_as_text(server: Daphne, url: str) -> None:
    async with dial(url, "error") as phone:
        await phone.greeting()
        await phone.say(">> crash a\x00b <b>é</b> %s")
    assert turns(server, ended(server, "error"))[1]["error"] == "RuntimeError: a\ufffdb <b>é</b> %s"


@pytest.mark.parametrize("metadata", [["a", 1], "text", 7, True, {"deep": [[{"a": None}]]}, {"n\x00l": "\x00"}, None])
@played
async def test_metadata_may_be_any_json(
    request: pytest.FixtureRequest, server: Daphne, url: str, metadata: object
) -> None:
    call_id = f"metadata-{request.node.callspec.id}"
    async with dial(url, call_id, details={"metadata": metadata}) as phone:
        await phone.greeting()
    kept = {"n\ufffdl": "\ufffd"} if metadata == {"n\x00l": "\x00"} else metadata
    call = ended(server, call_id)
    assert pick(call, "metadata", "direction") == (kept, "inbound")
    assert call["details"]["metadata"] == kept


@played
async def test_what_is_longer_than_its_column_is_cut(server: Daphne, url: str) -> None:
    long = "é" * 10_000
    names = ("agent_id", "from_number", "to_number", "direction", "call_type", "call_status")
    async with dial(url, "cut", details=dict.fromkeys(names, long)) as phone:
        await phone.greeting()
        await phone.send({"interaction_type": long})
        await phone.send({"interaction_type": "update_only", "transcript": [{"role": long, "content": "x"}]})
        await phone.ping()
    call = ended(server, "cut")
    assert pick(call, "from_number", "to_number") == (long[:64], long[:64])
    assert pick(call, "direction", "call_type") == (long[:40], long[:40])
    assert pick(utterances(server, call)[0], "role", "text") == (long[:40], "x")
    assert call["odd_frames"] == 1


@played
async def test_nulls_and_wrong_types_in_the_call_object_cost_themselves_only(server: Daphne, url: str) -> None:
    details = {
        "from_number": None,
        "direction": 7,
        "agent_version": "4",
        "custom_sip_headers": [],
        "metadata": {"a": 1},
    }
    async with dial(url, "odd-details", details=details) as phone:
        await phone.greeting()
    call = ended(server, "odd-details")
    assert pick(call, "from_number", "direction", "to_number", "metadata") == ("", "", "+15035550100", {"a": 1})


NUMBERS = {
    "overflow": "1e400",
    "huge": "1" + "0" * 30,
    "endless": "1" + "0" * 400,
    "negative": "-1e300",
    "no number": "NaN",
    "text": '"1.5"',
    "deep": "[" * 900 + "]" * 900,
}


@pytest.mark.parametrize("name", NUMBERS)
@played
async def test_timings_that_no_column_holds_cost_no_call_its_record(server: Daphne, url: str, name: str) -> None:
    number = NUMBERS[name]
    inside = f'"words":[{{"word":"x","start":{number},"end":{number}}}],"metadata":{{"response_id":{number}}}'
    async with dial(url, f"timing-{name}", deviations=True) as phone:
        await phone.greeting()
        await phone.send_raw(
            f'{{"interaction_type":"update_only","transcript":[{{"role":"agent","content":"How may",{inside}}}]}}'
        )
        await phone.ping()
        async with dial(url, f"beside-{name}") as other:
            await other.greeting()
        assert ended(server, f"beside-{name}", within=5)
    assert utterances(server, ended(server, f"timing-{name}", within=5))[0]["text"] == "How may"


@played
async def test_many_odd_frames_are_counted_and_noted_once_a_kind(server: Daphne, url: str) -> None:
    async with dial(url, "odd") as phone:
        await phone.greeting()
        for number in range(300):
            await phone.send_raw(json.dumps({"interaction_type": f"kind {number % 3}"}))
        await phone.quiet()
    call = ended(server, "odd")
    assert call["odd_frames"] == 300
    assert [event["kind"] for event in events(server, call)].count("odd frame") == 3


@pytest.mark.parametrize("call_id", ["<script>alert(1)", "a'b\"c", "電話-🚲", "x" * 255, "%2F%2e%2e", "a b"])
@played
async def test_a_call_id_is_kept_as_it_is(server: Daphne, url: str, call_id: str) -> None:
    async with dial(url, call_id, details=None) as phone:
        await phone.greeting()
    assert ended(server, call_id)["call_id"] == call_id
    assert len(calls(server, call_id)) == 1


@played
async def test_an_id_at_the_edge_of_its_column_is_kept(server: Daphne, url: str) -> None:
    found: list[Any] = []
    for number in (-(2**63), 2**63 - 1):
        async with dial(url, f"edge{number}", deviations=True) as phone:
            await phone.greeting()
            await phone.send({"interaction_type": "response_required", "response_id": number})
            await phone.send({"interaction_type": "response_required", "response_id": number * 2})
            await phone.ping()
        found += [turn["response_id"] for turn in turns(server, ended(server, f"edge{number}"))]
    assert found == [0, -(2**63), 0, 2**63 - 1]
