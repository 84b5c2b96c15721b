"""What changed between two transcripts, and which of our words were heard (protocol.md 4.3, 4.4)."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from calls.protocol import Item, Utterance
from calls.transcript import Sent, origin, unchanged, unheard

AGENT, USER = "agent", "user"


def said(*texts: str) -> tuple[Utterance, ...]:
    return tuple(Utterance(AGENT if number % 2 == 0 else USER, text) for number, text in enumerate(texts))


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ((), (), 0),
        ((), ("Hi",), 0),
        (("Hi",), ("Hi",), 1),
        (("Hi", "I"), ("Hi", "I want"), 1),
        (("Hi", "I want"), ("Hi", "I"), 1),
        (("Hi", "I", "Yes"), ("Hi", "I"), 2),
        (("Hi", "I"), ("Hey", "I"), 0),
        (("a", "b", "c", "d"), ("a", "x", "c", "d"), 1),
    ],
)
def test_the_leading_entries_that_say_the_same_are_counted(
    old: tuple[str, ...], new: tuple[str, ...], kept: int
) -> None:
    assert unchanged(said(*old), said(*new)) == kept


def test_new_word_timings_change_nothing() -> None:
    timed = (Utterance(AGENT, "Hi", Raw(b'[{"word":"Hi","start":1,"end":2}]')), Utterance(USER, "I"))
    assert unchanged(said("Hi", "I"), timed) == 2


def test_another_role_is_another_utterance() -> None:
    assert unchanged((Utterance(AGENT, "Hi"),), (Utterance(USER, "Hi"),)) == 0


def test_tool_items_differ_by_call_and_digit() -> None:
    assert unchanged((Item("dtmf", digit="1"),), (Item("dtmf", digit="2"),)) == 0
    assert unchanged((Item("dtmf", digit="1"),), (Item("dtmf", digit="1"),)) == 1


SORRY = "I am sorry, can you say that again?"


def test_a_sentence_said_many_times_belongs_to_the_turn_asked_for_last() -> None:
    turns = [Sent(1, 0, 0, "How may I help you?"), Sent(2, 1, 2, SORRY), Sent(3, 2, 4, SORRY)]
    assert origin(Utterance(AGENT, SORRY), 2, turns) == turns[1]
    assert origin(Utterance(AGENT, SORRY), 4, turns) == turns[2]


def test_a_superseded_answer_is_not_the_one_that_was_heard() -> None:
    """Both were asked for at the same place of the transcript; only the newer one can have been spoken."""
    turns = [Sent(1, 1, 2, SORRY), Sent(2, 2, 2, SORRY)]
    assert origin(Utterance(AGENT, SORRY), 2, turns) == turns[1]


def test_half_a_sentence_is_found_and_so_is_its_second_half() -> None:
    turn = Sent(5, 4, 8, "Let me look that up. Good news, it is ready.")
    assert origin(Utterance(AGENT, "Let me look th"), 8, [turn]) == turn
    assert origin(Utterance(AGENT, "good news it's"), 10, [turn]) is None
    assert origin(Utterance(AGENT, "Good news, it"), 10, [turn]) == turn


def test_words_of_nobody_belong_to_no_turn() -> None:
    assert origin(Utterance(AGENT, "Please hold the line"), 4, [Sent(1, 0, 0, "Hello")]) is None
    assert origin(Utterance(AGENT, ""), 4, [Sent(1, 0, 0, "Hello")]) is None


def test_the_platform_may_say_where_words_came_from() -> None:
    told = Utterance(AGENT, "One moment.", metadata=Raw(msgspec.json.encode({"response_id": 3})))
    turns = [Sent(3, 3, 0, "One moment."), Sent(4, 4, 0, "One moment.")]
    assert origin(told, 2, turns) == turns[0]


@pytest.mark.parametrize(
    ("sent", "heard", "rest"),
    [
        ("We do. Thirty dollars a day.", "We do.", "Thirty dollars a day."),
        ("We do. Thirty dollars a day.", "We do. Thirty dollars a day.", ""),
        ("We do. Thirty dollars a day.", "we do thirty dol", "a day."),
        ("We do.", "", "We do."),
        ("We do.", "Something else", "We do."),
        ("", "", ""),
        ("Bye!", "Bye", ""),
    ],
)
def test_what_was_not_heard_is_the_rest(sent: str, heard: str, rest: str) -> None:
    assert unheard(sent, heard) == rest
