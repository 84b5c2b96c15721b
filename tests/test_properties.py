"""Laws of the pure files, tried with whatever hypothesis thinks of: frames in, frames out, transcripts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from agents.settings import AgentSettings
from calls.notebook import Notebook
from calls.protocol import (
    AgentConfig,
    AgentInterrupt,
    BadFrame,
    CallDetails,
    Config,
    ConfigFlags,
    Inbound,
    Metadata,
    Odd,
    Outbound,
    PingPong,
    Pong,
    ReminderRequired,
    Response,
    ResponseRequired,
    ToolCallInvocation,
    ToolCallResult,
    UpdateAgent,
    UpdateOnly,
    decode,
    decode_outbound,
    encode,
    pieces,
)

CAP = 1 << 20
KINDS = (PingPong, CallDetails, UpdateOnly, ResponseRequired, ReminderRequired)

DEEP = "[" * 5000 + "]" * 5000

calmly = settings(deadline=None, max_examples=300)

# ---------------------------------------------------------------- what JSON can be

numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([2**63, -(2**63) - 1, 10**400]))
any_text = st.text(st.characters())  # half surrogate pairs, NUL and all
json_values = st.recursive(
    st.none() | st.booleans() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
transcripts = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["agent", "user"]) | json_values, "content": any_text | json_values},
        optional={"words": json_values, "metadata": json_values},
    )
    | json_values,
    max_size=3,
)
frames = st.fixed_dictionaries(
    {"interaction_type": st.sampled_from([kind.__struct_config__.tag for kind in KINDS]) | json_values},
    optional={
        "response_id": numbers | json_values,
        "timestamp": numbers | json_values,
        "transcript": transcripts | json_values,
        "transcript_with_tool_calls": transcripts | json_values,
        "turntaking": any_text | json_values,
        "call": st.dictionaries(
            st.sampled_from(["call_id", "from_number", "metadata", "retell_llm_dynamic_variables"]), json_values
        ),
        "extra": json_values,
    },
)


def understood(text: str) -> Inbound | Odd | None:
    """What the text is decoded to; None for a bad frame. Anything but BadFrame that is raised fails the test."""
    try:
        found = decode(text, cap=CAP)
    except BadFrame:
        return None
    assert isinstance(found, (*KINDS, Odd))
    return found


def read_through(found: Inbound | Odd | None) -> None:
    """Everything that the rest of the server asks a frame raises nothing either."""
    for said in getattr(found, "transcript", ()):
        assert isinstance(said.role + said.content, str)
        said.response_id()
        start, end = said.span()
        assert all(at is None or -(2**63) <= at < 2**63 for at in (start, end))
    if isinstance(found, CallDetails):
        assert all(isinstance(value, str) for value in found.call.variables.values())
    if isinstance(found, ResponseRequired | ReminderRequired):
        assert -(2**63) <= found.response_id < 2**63
    notebook = Notebook("c", AgentSettings(), process="here")
    if found is not None:
        notebook.received(found, "{}")
    notebook.take()


class TestIn:
    @calmly
    @given(json_values | frames)
    @example(
        {
            "interaction_type": "update_only",
            "transcript": [{"role": "agent", "content": "x", "words": [{"start": 10**400}]}],
        }
    )
    def test_any_json_is_a_value(self, value: Any) -> None:
        read_through(understood(json.dumps(value)))

    @calmly
    @given(frames)
    def test_any_json_is_a_value_however_its_characters_are_written(self, value: Any) -> None:
        read_through(understood(json.dumps(value, ensure_ascii=False)))

    @calmly
    @given(any_text)
    @example("[" * 100_000)
    @example('{"interaction_type":"ping_pong","timestamp":1}x')
    @example("\ufeff{}")
    def test_any_text_is_a_value_or_a_bad_frame(self, text: str) -> None:
        read_through(understood(text))

    @calmly
    @given(frames, st.data())
    def test_a_frame_with_a_few_characters_changed_is_a_value_or_a_bad_frame(self, value: Any, data: Any) -> None:
        text = json.dumps(value)
        for _ in range(data.draw(st.integers(1, 4))):
            begin = data.draw(st.integers(0, len(text)))
            end = min(len(text), begin + data.draw(st.integers(0, 5)))
            text = text[:begin] + data.draw(any_text.filter(lambda more: len(more) < 6)) + text[end:]
        read_through(understood(text))

    @pytest.mark.parametrize(
        "number", ["1e400", "-1e400", "1" + "0" * 400, "1" + "0" * 30, "NaN", DEEP], ids=lambda n: n[:6]
    )
    @pytest.mark.parametrize("place", ["words", "metadata"])
    def test_numbers_that_nothing_can_hold_harm_nobody(self, place: str, number: str) -> None:
        inside = f'{{"start":{number},"end":{number},"response_id":{number}}}'
        value = f"[{inside}]" if place == "words" else inside
        said = f'{{"role":"agent","content":"x","{place}":{value}}}'
        read_through(understood(f'{{"interaction_type":"update_only","transcript":[{said}]}}'))


# ---------------------------------------------------------------- what goes out

texts = st.text(st.characters(exclude_categories=["Cs"]))
ids = st.integers(-(2**63), 2**63 - 1)
flags = st.booleans()
actions = st.sampled_from([{}, {"end_call": True}]) | st.builds(lambda n: {"transfer_number": n}, texts.filter(bool))
actions |= st.builds(lambda d: {"digit_to_press": d}, st.text("0123456789*#", min_size=1))
finals = st.tuples(st.just(True), actions) | st.tuples(st.just(False), st.just({}))
unit = st.floats(0, 1) | st.just(UNSET)
listening = st.builds(
    AgentConfig, unit, unit, st.integers(1, 10**6) | st.just(UNSET), st.integers(0, 9) | st.just(UNSET)
).filter(bool)
outbound: st.SearchStrategy[Outbound] = st.one_of(
    st.builds(Config, st.builds(ConfigFlags, flags, flags, flags)),
    st.builds(
        lambda number, text, final, protected: Response(number, text, final[0], protected, **final[1]),
        ids, texts, finals, flags,
    ),
    st.builds(
        lambda number, text, final, protected: AgentInterrupt(number, text, final[0], protected, **final[1]),
        ids, texts, finals, flags,
    ),
    st.builds(Pong, ids),
    st.builds(UpdateAgent, listening),
    st.builds(ToolCallInvocation, texts, texts, texts),
    st.builds(ToolCallResult, texts, texts, flags | st.just(UNSET)),
    st.builds(Metadata, st.dictionaries(texts, st.none() | flags | ids | texts, max_size=4)),
)  # fmt: skip


class TestOut:
    @calmly
    @given(outbound)
    def test_what_is_encoded_is_decoded_to_the_same_frame(self, frame: Outbound) -> None:
        assert decode_outbound(encode(frame)) == frame

    @calmly
    @given(outbound)
    def test_a_frame_is_an_object_that_names_its_kind_and_holds_no_null(self, frame: Outbound) -> None:
        found = json.loads(encode(frame))
        assert found["response_type"] == frame.__struct_config__.tag
        assert [name for name, value in found.items() if value is None] == []

    @calmly
    @given(st.text(st.sampled_from("ab .!?\n") | st.characters(exclude_categories=["Cs"])).map(lambda text: text * 80))
    def test_long_text_is_cut_without_losing_a_character(self, text: str) -> None:
        cut = pieces(text)
        assert "".join(cut) == text
        assert max(len(piece) for piece in cut) <= 2000
        assert [piece for piece in cut[:-1] if not piece] == []
