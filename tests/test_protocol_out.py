"""What is sent, encoded: exact types, no null, one action, ranges (protocol.md 3, 9.1 and C15, C17, C20)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents.actions import EndCall, PressDigits, Transfer
from calls.protocol import (
    AgentConfig,
    AgentInterrupt,
    Config,
    ConfigFlags,
    Metadata,
    Outbound,
    Pong,
    Response,
    ToolCallInvocation,
    ToolCallResult,
    UpdateAgent,
    action_fields,
    decode_outbound,
    encode,
    pieces,
)

FRAMES: dict[str, tuple[Outbound, str]] = {
    "S1": (
        Config(ConfigFlags(True, True, True)),
        '{"response_type":"config","config":{"auto_reconnect":true,"call_details":true,'
        '"transcript_with_tool_calls":true}}',
    ),
    "S2": (
        Response(0, "Harbor Cycles, how can I help?", True),
        '{"response_type":"response","response_id":0,"content":"Harbor Cycles, how can I help?",'
        '"content_complete":true}',
    ),
    "S3": (Response(0, "", True), '{"response_type":"response","response_id":0,"content":"","content_complete":true}'),
    "S4": (Pong(1790000002000), '{"response_type":"ping_pong","timestamp":1790000002000}'),
    "S5": (
        Response(1, "Yes, it is ready. ", False),
        '{"response_type":"response","response_id":1,"content":"Yes, it is ready. ","content_complete":false}',
    ),
    "S8": (
        Response(9, "Thanks for calling, bye!", True, no_interruption_allowed=True, end_call=True),
        '{"response_type":"response","response_id":9,"content":"Thanks for calling, bye!","content_complete":true,'
        '"no_interruption_allowed":true,"end_call":true}',
    ),
    "S9": (
        Response(8, "I will put you through.", True, no_interruption_allowed=True, transfer_number="+15035550177"),
        '{"response_type":"response","response_id":8,"content":"I will put you through.","content_complete":true,'
        '"no_interruption_allowed":true,"transfer_number":"+15035550177"}',
    ),
    "S10": (
        Response(3, "", True, digit_to_press="204#"),
        '{"response_type":"response","response_id":3,"content":"","content_complete":true,"digit_to_press":"204#"}',
    ),
    "S11": (
        AgentInterrupt(1, "Sorry to cut in.", True, no_interruption_allowed=True),
        '{"response_type":"agent_interrupt","interrupt_id":1,"content":"Sorry to cut in.","content_complete":true,'
        '"no_interruption_allowed":true}',
    ),
    "S12": (
        UpdateAgent(AgentConfig(0.4, 0.7, 6000, 2)),
        '{"response_type":"update_agent","agent_config":{"responsiveness":0.4,"interruption_sensitivity":0.7,'
        '"reminder_trigger_ms":6000,"reminder_max_count":2}}',
    ),
    "S13": (
        ToolCallInvocation("tc_1", "ticket_status", '{"ticket":"HC-207"}'),
        '{"response_type":"tool_call_invocation","tool_call_id":"tc_1","name":"ticket_status",'
        '"arguments":"{\\"ticket\\":\\"HC-207\\"}"}',
    ),
    "S14": (
        ToolCallResult("tc_1", "ready", True),
        '{"response_type":"tool_call_result","tool_call_id":"tc_1","content":"ready","successful":true}',
    ),
    "S15": (
        Metadata({"show_card": "ticket"}),
        '{"response_type":"metadata","metadata":{"show_card":"ticket"}}',
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_of_each_kind_is_what_the_platform_documents(name: str) -> None:
    frame, text = FRAMES[name]
    assert encode(frame) == text
    assert decode_outbound(text) == frame


def test_optional_fields_are_left_out_and_never_null() -> None:
    frames = [frame for frame, _ in FRAMES.values()] + [ToolCallResult("tc", "x"), UpdateAgent(AgentConfig(0.5))]
    assert [text for text in map(encode, frames) if "null" in text] == []
    assert json.loads(encode(ToolCallResult("tc", "x"))) == {
        "response_type": "tool_call_result", "tool_call_id": "tc", "content": "x",
    }  # fmt: skip


WRONG: list[Any] = [
    lambda: Response("1", "x", True),  # type: ignore[arg-type]
    lambda: Response(True, "x", True),
    lambda: Response(1.0, "x", True),  # type: ignore[arg-type]
    lambda: Response(1, None, True),  # type: ignore[arg-type]
    lambda: Response(1, "x", 1),  # type: ignore[arg-type]
    lambda: Response(1, "x", True, no_interruption_allowed=None),  # type: ignore[arg-type]
    lambda: Response(1, "x", True, end_call="yes"),  # type: ignore[arg-type]
    lambda: Response(1, "x", True, transfer_number=15035550177),  # type: ignore[arg-type]
    lambda: Response(1, "x", True, digit_to_press=""),
    lambda: AgentInterrupt("1", "x", True),  # type: ignore[arg-type]
    lambda: ConfigFlags(1),  # type: ignore[arg-type]
    lambda: ToolCallInvocation("tc", "name", {"a": 1}),  # type: ignore[arg-type]
    lambda: ToolCallResult("tc", {"a": 1}),  # type: ignore[arg-type]
    lambda: ToolCallResult("tc", "x", "yes"),  # type: ignore[arg-type]
    lambda: Metadata("x"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("make", WRONG)
def test_the_wrong_type_is_refused_here_and_not_dropped_there(make: Any) -> None:
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize(
    "actions",
    [
        {"end_call": True, "transfer_number": "+1"},
        {"end_call": True, "digit_to_press": "1"},
        {"transfer_number": "+1", "digit_to_press": "1"},
    ],
)
def test_two_actions_are_refused(actions: dict[str, Any]) -> None:
    """protocol.md A18."""
    with pytest.raises(ValueError, match="at most one action"):
        Response(1, "x", True, **actions)


def test_an_action_before_the_end_is_refused() -> None:
    """protocol.md A19."""
    with pytest.raises(ValueError, match="final frame"):
        Response(1, "x", False, end_call=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"responsiveness": 1.1},
        {"responsiveness": -0.1},
        {"responsiveness": float("nan")},
        {"interruption_sensitivity": 2},
        {"reminder_trigger_ms": 0},
        {"reminder_max_count": -1},
    ],
)
def test_live_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    """protocol.md 3.5."""
    with pytest.raises(ValueError, match="must be at least"):
        AgentConfig(**settings)


@pytest.mark.parametrize(
    "settings", [{"reminder_trigger_ms": 1.5}, {"responsiveness": True}, {"reminder_max_count": "2"}]
)
def test_live_settings_of_the_wrong_type_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        AgentConfig(**settings)


@pytest.mark.parametrize("action", [EndCall(), Transfer("+15035550177", True), PressDigits("204#")])
def test_an_action_survives_the_wire(action: Any) -> None:
    frame = decode_outbound(encode(Response(1, "", True, **action_fields(action))))
    assert isinstance(frame, Response)
    assert frame.action == action


def test_long_text_is_cut_at_spaces_and_loses_nothing() -> None:
    """protocol.md A23."""
    text = "word " * 1000
    cut = pieces(text, 2000)
    assert "".join(cut) == text
    assert max(map(len, cut)) <= 2000
    assert all(piece.endswith(" ") for piece in cut)
    assert pieces("x" * 4001, 2000) == ["x" * 2000, "x" * 2000, "x"]
    assert pieces("") == [""]


def test_text_that_cannot_be_encoded_is_mended_before_it_is_sent() -> None:
    assert pieces("a\ud83d") == ["a?"]
