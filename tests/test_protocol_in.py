"""What the platform sends, decoded: every kind, every field, every oddity (protocol.md 2 and 9.1)."""

from __future__ import annotations

import json

import pytest

from calls.protocol import (
    BadFrame,
    CallDetails,
    CallObject,
    Item,
    Odd,
    PingPong,
    ReminderRequired,
    ResponseRequired,
    UpdateOnly,
    Utterance,
    decode,
)

CAP = 8 * 1024 * 1024


def read(text: str | None, cap: int = CAP) -> object:
    return decode(text, cap=cap)


FRAMES = {
    "P1": ('{"interaction_type":"ping_pong","timestamp":1790000002000}', PingPong(1790000002000)),
    "P3": (
        '{"interaction_type":"call_details","call":{"call_id":"call_02b6","call_type":"web_call",'
        '"call_status":"registered","agent_id":"agent_harbor01","agent_version":4,"access_token":"secret"}}',
        CallDetails(CallObject("call_02b6", "web_call", "registered", "agent_harbor01", 4)),
    ),
    "P6": ('{"interaction_type":"update_only","transcript":[]}', UpdateOnly()),
    "P8": (
        '{"interaction_type":"reminder_required","response_id":5,"transcript":[{"role":"agent",'
        '"content":"Would Friday suit you?"}]}',
        ReminderRequired(5, (Utterance("agent", "Would Friday suit you?"),)),
    ),
    "P10": (
        '{"interaction_type":"response_required","response_id":6,"transcript":[{"role":"user",'
        '"content":"(unintelligible audio)"}]}',
        ResponseRequired(6, (Utterance("user", "(unintelligible audio)"),)),
    ),
    "P11, the oldest shape": (
        '{"response_id":2,"transcript":[{"role":"user","content":"Are you open?"}],'
        '"interaction_type":"response_required"}',
        ResponseRequired(2, (Utterance("user", "Are you open?"),)),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_of_each_kind_becomes_a_value(name: str) -> None:
    text, frame = FRAMES[name]
    assert read(text) == frame


def test_details_carry_numbers_variables_and_metadata() -> None:
    frame = read(
        '{"interaction_type":"call_details","call":{"call_id":"c","direction":"inbound","from_number":"+15035550142",'
        '"to_number":"+15035550100","metadata":{"crm_id":"C-881"},"retell_llm_dynamic_variables":'
        '{"customer_name":"Ines"},"start_timestamp":1790000000100,"custom_sip_headers":{"x-a":"b"}}}'
    )
    assert isinstance(frame, CallDetails)
    call = frame.call
    assert (call.direction, call.from_number, call.to_number) == ("inbound", "+15035550142", "+15035550100")
    assert (call.metadata, call.variables) == ({"crm_id": "C-881"}, {"customer_name": "Ines"})
    assert (call.start_timestamp, call.custom_sip_headers) == (1790000000100, {"x-a": "b"})


@pytest.mark.parametrize("key", ["retell_llm_dynamic_variables", "uponai_dynamic_variables", "dynamic_variables"])
def test_variables_are_found_under_any_of_the_three_keys(key: str) -> None:
    """protocol.md A28."""
    frame = read(json.dumps({"interaction_type": "call_details", "call": {key: {"visits": 3, "name": "Ines"}}}))
    assert isinstance(frame, CallDetails)
    assert frame.call.variables == {"visits": "3", "name": "Ines"}


def test_the_access_token_is_never_decoded() -> None:
    frame = read('{"interaction_type":"call_details","call":{"call_id":"c","access_token":"sesame"}}')
    assert "sesame" not in repr(frame)


def test_an_update_says_who_has_the_turn() -> None:
    frame = read('{"interaction_type":"update_only","transcript":[],"turntaking":"user_turn"}')
    assert frame == UpdateOnly(turntaking="user_turn")


def test_words_stay_undecoded_until_asked_for() -> None:
    frame = read(
        '{"interaction_type":"update_only","transcript":[{"role":"user","content":"Hello, my","words":'
        '[{"word":"Hello,","start":2.31,"end":2.6},{"word":"my","start":2.64,"end":2.79}]}]}'
    )
    assert isinstance(frame, UpdateOnly)
    said = frame.transcript[0]
    assert bytes(said.words).startswith(b'[{"word":"Hello,"')
    assert said.span() == (2.31, 2.79)


@pytest.mark.parametrize(
    "words", ["null", "[]", "7", '"x"', '[{"word":"a"}]', '[{"start":"late","end":true}]', "[[1]]"]
)
def test_odd_words_have_no_span(words: str) -> None:
    frame = read(f'{{"interaction_type":"update_only","transcript":[{{"role":"user","content":"a","words":{words}}}]}}')
    assert isinstance(frame, UpdateOnly)
    assert frame.transcript[0].span() == (None, None)


@pytest.mark.parametrize(("metadata", "told"), [('{"response_id":3}', 3), ('{"response_id":true}', None), ("[]", None)])
def test_an_utterance_may_name_its_response(metadata: str, told: int | None) -> None:
    frame = read(
        f'{{"interaction_type":"update_only","transcript":[{{"role":"agent","content":"One moment.","words":[],'
        f'"metadata":{metadata}}}]}}'
    )
    assert isinstance(frame, UpdateOnly)
    assert frame.transcript[0].response_id() == told


def test_tool_items_keep_their_fields_and_unknown_roles_are_values() -> None:
    frame = read(
        '{"interaction_type":"response_required","response_id":4,"transcript":[],"transcript_with_tool_calls":['
        '{"role":"tool_call_invocation","tool_call_id":"tc_1","name":"ticket_status","arguments":"{}"},'
        '{"role":"tool_call_result","tool_call_id":"tc_1","content":"ready","successful":true},'
        '{"role":"dtmf","digit":"5"},{"role":"node_transition","new":1},{"role":"sms","content":"x","time_sec":1.5}]}'
    )
    assert isinstance(frame, ResponseRequired)
    assert frame.transcript_with_tool_calls == (
        Item("tool_call_invocation", tool_call_id="tc_1", name="ticket_status", arguments="{}"),
        Item("tool_call_result", "ready", tool_call_id="tc_1", successful=True),
        Item("dtmf", digit="5"),
        Item("node_transition"),
        Item("sms", "x", time_sec=1.5),
    )


ODD = {
    "a list": "[]",
    "a number": "42",
    "a string": '"x"',
    "null": "null",
    "nothing inside": "{}",
    "a kind that is a number": '{"interaction_type":7}',
    "a new kind": '{"interaction_type":"brand_new_kind"}',
    "no id": '{"interaction_type":"response_required","transcript":[]}',
    "a word for an id": '{"interaction_type":"response_required","response_id":"seven"}',
    "a float for an id": '{"interaction_type":"response_required","response_id":3.0}',
    "a boolean for an id": '{"interaction_type":"reminder_required","response_id":true}',
    "an id beyond 64 bits": '{"interaction_type":"reminder_required","response_id":99999999999999999999}',
    "a ping without a time": '{"interaction_type":"ping_pong"}',
    "a ping with half a time": '{"interaction_type":"ping_pong","timestamp":1.5}',
    "details without a call": '{"interaction_type":"call_details"}',
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_frame_is_a_value_that_says_why(name: str) -> None:
    frame = read(ODD[name])
    assert isinstance(frame, Odd)
    assert frame.why


BAD = {
    "empty text": "",
    "no JSON": "hello",
    "a truncated object": '{"interaction_type":"ping_pong",',
    "two objects": "{}{}",
    "a byte order mark": "\ufeff{}",
    "nesting without end": "[" * 100_000,
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_json_is_a_bad_frame(name: str) -> None:
    with pytest.raises(BadFrame) as bad:
        read(BAD[name])
    assert not bad.value.binary


def test_a_binary_frame_is_bad_and_says_so() -> None:
    with pytest.raises(BadFrame) as bad:
        read(None)
    assert bad.value.binary


def test_the_cap_counts_bytes_and_admits_exactly_its_size() -> None:
    text = '{"interaction_type":"update_only","transcript":[{"role":"user","content":"Olá"}]}'
    size = len(text.encode())
    assert isinstance(read(text, cap=size), UpdateOnly)
    with pytest.raises(BadFrame, match=f"{size} bytes"):
        read(text, cap=size - 1)


@pytest.mark.parametrize("transcript", ["", ',"transcript":null', ',"transcript":7', ',"transcript":[]'])
def test_a_missing_transcript_is_an_empty_one(transcript: str) -> None:
    """protocol.md A11: the request is still answered."""
    assert read(f'{{"interaction_type":"response_required","response_id":1{transcript}}}') == ResponseRequired(1)


def test_entries_that_are_no_utterances_are_left_out_and_the_rest_is_kept() -> None:
    frame = read(
        '{"interaction_type":"response_required","response_id":1,"transcript":[1,null,"x",{"content":"no role"},'
        '{"role":7},{"role":"user","content":null},{"role":"user","content":"Hi","words":null,"new":1}]}'
    )
    assert isinstance(frame, ResponseRequired)
    assert [(said.role, said.content) for said in frame.transcript] == [("user", ""), ("user", "Hi")]


def test_an_id_of_digits_is_an_id() -> None:
    """protocol.md A10."""
    assert read('{"interaction_type":"response_required","response_id":"12"}') == ResponseRequired(12)


def test_null_counts_as_absent() -> None:
    """protocol.md A13."""
    frame = read(
        '{"interaction_type":"update_only","transcript":[],"turntaking":null,"transcript_with_tool_calls":null}'
    )
    assert frame == UpdateOnly()


def test_a_field_of_the_wrong_type_costs_that_field_only() -> None:
    frame = read('{"interaction_type":"call_details","call":{"call_id":7,"agent_id":"agent_1","direction":["x"]}}')
    assert frame == CallDetails(CallObject(agent_id="agent_1"))


def test_half_a_surrogate_pair_is_mended() -> None:
    """Speech recognition cut an emoji in two: no reason to end a call."""
    frame = read(
        '{"interaction_type":"response_required","response_id":1,"transcript":[{"role":"user","content":"a\\ud83d"}]}'
    )
    assert isinstance(frame, ResponseRequired)
    assert frame.transcript[0].content == "a?"
