"""Whose turn it is and what may still be said: rules of a live call as values (protocol.md 4 and 10)."""

from __future__ import annotations

from typing import Any

import pytest

from agents.actions import EndCall, PressDigits, Transfer
from agents.settings import AgentSettings
from calls.protocol import (
    AgentInterrupt,
    BadFrame,
    PingPong,
    Pong,
    ReminderRequired,
    Response,
    ResponseRequired,
    UpdateOnly,
    Utterance,
)
from calls.session import Session
from calls.turns import BadFrames, Close, Turn

SAID = (Utterance("user", "Hello?"),)


def a_session(**settings: Any) -> Session:
    session = Session(AgentSettings(**settings))
    session.open()
    return session


def turn_of(session: Session, request: ResponseRequired | ReminderRequired) -> Turn:
    assert session.receive(request) == []
    assert session.turn is not None
    return session.turn


def test_a_request_makes_a_turn_and_is_answered_under_its_id() -> None:
    session = a_session()
    turn = turn_of(session, ResponseRequired(3, SAID))
    assert (turn.response_id, turn.is_reminder, turn.transcript) == (3, False, SAID)
    assert session.speak(turn, "Yes. ") == [Response(3, "Yes. ", False)]
    assert session.finish(turn) == [Response(3, "", True)]


def test_a_new_turn_silences_the_old_one() -> None:
    session = a_session()
    first = turn_of(session, ResponseRequired(1))
    second = turn_of(session, ResponseRequired(2))
    assert session.speak(first, "late") == []
    assert session.finish(first, "late") == []
    assert session.speak(second, "on time") == [Response(2, "on time", False)]


def test_a_turn_is_completed_once() -> None:
    session = a_session()
    turn = turn_of(session, ResponseRequired(1))
    assert session.finish(turn, "Done.") == [Response(1, "Done.", True)]
    assert session.finish(turn, "Done.") == []
    assert session.speak(turn, "more") == []


def test_an_update_changes_nothing() -> None:
    session = a_session()
    turn = turn_of(session, ResponseRequired(1))
    assert session.receive(UpdateOnly(SAID, turntaking="user_turn")) == []
    assert session.turn is turn
    assert session.speak(turn, "still here") == [Response(1, "still here", False)]


def test_a_ping_is_echoed() -> None:
    assert a_session().receive(PingPong(42)) == [Pong(42)]


def test_empty_fragments_are_not_sent() -> None:
    session = a_session()
    assert session.speak(turn_of(session, ResponseRequired(1)), "") == []


def test_long_text_goes_out_in_several_frames_with_one_completion() -> None:
    session = a_session()
    turn = turn_of(session, ResponseRequired(1))
    frames = session.finish(turn, "word " * 1000, EndCall())
    assert [frame.content_complete for frame in frames] == [False, False, True]  # type: ignore[union-attr]
    assert [frame.end_call for frame in frames] == [False, False, True]  # type: ignore[union-attr]


def test_a_lower_id_is_stale() -> None:
    """protocol.md A24."""
    session = a_session()
    turn = turn_of(session, ResponseRequired(5))
    assert session.receive(ResponseRequired(4)) == []
    assert session.turn is turn


def test_the_same_id_again_is_already_being_answered() -> None:
    """protocol.md A25."""
    session = a_session()
    turn = turn_of(session, ResponseRequired(5))
    session.receive(ResponseRequired(5))
    assert session.turn is turn
    session.finish(turn, "Yes.")
    session.receive(ResponseRequired(5))
    assert session.turn is turn


def test_ids_may_skip() -> None:
    session = a_session()
    turn_of(session, ResponseRequired(1))
    assert turn_of(session, ReminderRequired(9)).response_id == 9


def test_a_reminder_is_marked_as_one() -> None:
    session = a_session()
    assert turn_of(session, ReminderRequired(1)).is_reminder


def test_a_protected_reply_carries_the_flag_on_every_frame_from_then_on() -> None:
    """protocol.md A20."""
    session = a_session()
    turn = turn_of(session, ResponseRequired(1))
    turn.protected = True
    frames = [*session.speak(turn, "Thanks. "), *session.finish(turn, "Bye!", EndCall())]
    assert frames == [
        Response(1, "Thanks. ", False, no_interruption_allowed=True),
        Response(1, "Bye!", True, no_interruption_allowed=True, end_call=True),
    ]


@pytest.mark.parametrize("action", [EndCall(), Transfer("+15035550177", True)])
def test_a_reminder_repeats_an_action_that_is_still_pending(action: Any) -> None:
    """protocol.md A16."""
    session = a_session()
    session.finish(turn_of(session, ResponseRequired(1)), "Bye!", action)
    frames = session.receive(ReminderRequired(2))
    assert [(frame.response_id, frame.content, frame.action) for frame in frames] == [(2, "", action)]  # type: ignore[union-attr]
    assert session.turn is not None
    assert session.turn.complete


def test_a_new_request_shows_the_responder_what_the_caller_talked_over() -> None:
    """protocol.md A16: it decides; an answer without the action drops it."""
    session = a_session()
    session.finish(turn_of(session, ResponseRequired(1)), "Bye!", EndCall())
    second = turn_of(session, ResponseRequired(2))
    assert second.pending_action == EndCall()
    third = turn_of(session, ResponseRequired(3))
    assert third.pending_action == EndCall()
    session.finish(third, "Oh, one more thing?")
    assert turn_of(session, ReminderRequired(4)).pending_action is None


def test_a_fallback_decides_nothing_about_a_pending_action() -> None:
    session = a_session()
    session.finish(turn_of(session, ResponseRequired(1)), "Bye!", EndCall())
    session.finish(turn_of(session, ResponseRequired(2)), "Sorry?", meant=False)
    assert turn_of(session, ResponseRequired(3)).pending_action == EndCall()


def test_digits_are_not_pressed_twice() -> None:
    session = a_session()
    session.finish(turn_of(session, ResponseRequired(1)), "", PressDigits("204#"))
    assert turn_of(session, ReminderRequired(2)).pending_action is None


def test_an_interrupt_counts_up_and_cancels_the_running_reply() -> None:
    """protocol.md 4.7 and C19."""
    session = a_session()
    turn = turn_of(session, ResponseRequired(1))
    assert session.interrupt("We close soon.") == [
        AgentInterrupt(1, "We close soon.", True, no_interruption_allowed=True)
    ]
    assert session.turn is None
    assert session.speak(turn, "late") == []
    [second] = session.interrupt("Now.", EndCall(), protected=False)
    assert second == AgentInterrupt(2, "Now.", True, end_call=True)


def test_an_interrupt_leaves_out_what_is_not_documented_for_it() -> None:
    [frame] = a_session().interrupt("Bye", Transfer("+1503", True))
    assert frame == AgentInterrupt(1, "Bye", True, no_interruption_allowed=True, transfer_number="+1503")


def test_a_long_interrupt_keeps_one_id() -> None:
    frames = a_session().interrupt("word " * 500)
    assert [(frame.interrupt_id, frame.content_complete) for frame in frames] == [(1, False), (1, True)]  # type: ignore[union-attr]


TEXT, BINARY = BadFrame("text that is not JSON"), BadFrame("a binary frame", binary=True)


def test_bad_frames_close_with_the_reasons_of_the_guide() -> None:
    """protocol.md A8 and C21."""
    assert a_session().refuse(TEXT) == [Close(1002, "Cannot parse incoming message.")]
    assert a_session().refuse(BINARY) == [Close(1002, "Cannot find corresponding Retell LLM.")]


def test_the_code_can_be_chosen() -> None:
    session = Session(AgentSettings(), bad_frames=BadFrames(code=1007))
    assert session.refuse(TEXT) == [Close(1007, "Cannot parse incoming message.")]


def test_bad_text_can_be_ignored_and_binary_cannot() -> None:
    session = Session(AgentSettings(), bad_frames=BadFrames(ignore_text=True))
    assert session.refuse(TEXT) == []
    assert session.refuse(BINARY) == [Close(1002, "Cannot find corresponding Retell LLM.")]


def test_after_a_close_nothing_is_heard_or_said() -> None:
    session = a_session()
    turn = turn_of(session, ResponseRequired(1))
    session.refuse(TEXT)
    assert session.receive(PingPong(1)) == []
    assert session.receive(ResponseRequired(2)) == []
    assert session.speak(turn, "late") == []
    assert session.interrupt("late") == []
    assert session.refuse(TEXT) == []


def test_the_goodbye_is_a_hang_up_on_purpose() -> None:
    """protocol.md A15: only when the platform has forgotten to close."""
    session = a_session()
    assert session.farewell() == []
    session.finish(turn_of(session, ResponseRequired(1)), "Bye!", EndCall())
    assert session.farewell() == [Close(1000, "Call ended.")]


def test_live_settings_leave_out_what_is_not_said() -> None:
    [frame] = a_session().listen(reminder_trigger_ms=30000, responsiveness=0.3, interruption_sensitivity=None)
    assert frame.agent_config.reminder_trigger_ms == 30000  # type: ignore[union-attr]
    assert a_session().listen(responsiveness=None) == []
