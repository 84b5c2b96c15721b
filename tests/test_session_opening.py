"""The first words, with and without the caller's name, and after a reconnect (protocol.md 1.4, A4 to A6, A26, A27)."""

from __future__ import annotations

from typing import Any

from agents.actions import EndCall, PressDigits
from agents.settings import AgentSettings
from calls.protocol import (
    AgentConfig,
    CallDetails,
    CallObject,
    Config,
    ConfigFlags,
    ReminderRequired,
    Response,
    ResponseRequired,
    UpdateAgent,
    Utterance,
)
from calls.session import Session
from calls.turns import Memory

BY_NAME: dict[str, Any] = {"greeting": "Hi {{customer_name}}, hello.", "call_details": True, "auto_reconnect": True}
CONFIG = Config(ConfigFlags(True, True))
INES = CallDetails(CallObject(retell_llm_dynamic_variables={"customer_name": "Ines"}))
SAID = (Utterance("user", "Do you rent bikes too?"),)


def begin(text: str) -> Response:
    return Response(0, text, True)


def test_with_nothing_configured_it_is_the_guides_greeting_alone() -> None:
    assert Session(AgentSettings()).open() == [begin("How may I help you?")]


def test_config_comes_first_and_own_settings_with_it() -> None:
    """C4."""
    settings = AgentSettings(auto_reconnect=True, responsiveness=0.5, reminder_max_count=0)
    assert Session(settings).open() == [
        Config(ConfigFlags(auto_reconnect=True)),
        UpdateAgent(AgentConfig(responsiveness=0.5, reminder_max_count=0)),
        begin("How may I help you?"),
    ]


def test_the_caller_may_speak_first() -> None:
    """C5: an empty begin message, at once, whatever the greeting says."""
    settings = AgentSettings(**BY_NAME, speak_first=False)
    assert Session(settings).open() == [CONFIG, begin("")]


def test_a_greeting_by_name_waits_for_the_name() -> None:
    """C6."""
    session = Session(AgentSettings(**BY_NAME))
    assert session.open() == [CONFIG]
    assert session.waits_for_details
    assert session.receive(INES) == [begin("Hi Ines, hello.")]
    assert not session.waits_for_details
    assert session.details_late() == []


def test_a_greeting_without_variables_does_not_wait() -> None:
    session = Session(AgentSettings(call_details=True))
    assert session.open() == [Config(ConfigFlags(call_details=True)), begin("How may I help you?")]
    assert session.receive(INES) == []


def test_nothing_waits_for_details_that_were_not_asked_for() -> None:
    assert Session(AgentSettings(greeting="Hi {{name}}, hello.")).open() == [begin("Hi, hello.")]


def test_when_the_name_is_late_the_greeting_is_general() -> None:
    """A27; the name that comes afterwards is not greeted again."""
    session = Session(AgentSettings(**BY_NAME))
    session.open()
    assert session.details_late() == [begin("Hi, hello.")]
    assert session.receive(INES) == []


def test_a_missing_name_is_no_hole_in_the_sentence() -> None:
    session = Session(AgentSettings(**BY_NAME, greeting_without_variables="Hello there."))
    session.open()
    assert session.receive(CallDetails(CallObject())) == [begin("Hello there.")]


def test_a_request_before_the_greeting_is_answered_instead() -> None:
    """A26."""
    session = Session(AgentSettings(**BY_NAME))
    session.open()
    assert session.receive(ResponseRequired(1)) == []
    assert not session.waits_for_details
    assert session.receive(INES) == []
    assert session.turn is not None
    assert session.finish(session.turn, "Yes?") == [Response(1, "Yes?", True)]


def test_variables_and_metadata_reach_the_turn() -> None:
    """C26."""
    session = Session(AgentSettings(call_details=True))
    session.open()
    session.receive(CallDetails(CallObject(metadata={"crm": 1}, uponai_dynamic_variables={"a": "b"})))
    session.receive(ResponseRequired(1))
    assert session.turn is not None
    assert (session.turn.call.metadata, session.turn.variables) == ({"crm": 1}, {"a": "b"})


class TestTheAgentThePlatformNames:
    DEFAULT = AgentSettings(pk=1, greeting="Default.")
    HARBOR = AgentSettings(pk=2, platform_agent_id="agent_h", greeting="Harbor, hi {{name}}!", responsiveness=0.4)

    def session(self) -> Session:
        return Session(self.DEFAULT, agents={"agent_h": self.HARBOR})

    def test_details_are_asked_for_and_waited_for(self) -> None:
        session = self.session()
        assert session.open() == [Config(ConfigFlags(call_details=True))]
        assert session.waits_for_details

    def test_it_takes_the_call(self) -> None:
        session = self.session()
        session.open()
        details = CallDetails(CallObject(agent_id="agent_h", retell_llm_dynamic_variables={"name": "Bo"}))
        assert session.receive(details) == [UpdateAgent(AgentConfig(responsiveness=0.4)), begin("Harbor, hi Bo!")]
        assert session.settings is self.HARBOR

    def test_an_unknown_one_leaves_the_call_to_the_default(self) -> None:
        session = self.session()
        session.open()
        assert session.receive(CallDetails(CallObject(agent_id="agent_x"))) == [begin("Default.")]

    def test_it_takes_over_even_when_it_is_named_late_and_greets_no_more(self) -> None:
        session = self.session()
        session.open()
        assert session.details_late() == [begin("Default.")]
        assert session.receive(CallDetails(CallObject(agent_id="agent_h"))) == [
            UpdateAgent(AgentConfig(responsiveness=0.4))
        ]
        assert session.settings is self.HARBOR

    def test_the_second_details_do_not_change_the_agent(self) -> None:
        session = self.session()
        session.open()
        session.receive(CallDetails(CallObject(agent_id="agent_x")))
        session.receive(CallDetails(CallObject(agent_id="agent_h")))
        assert session.settings is self.DEFAULT


class TestTheNextSocket:
    def dropped(self, said: str = "", **settings: Any) -> Memory:
        """A call that was lost in the middle of turn 7."""
        session = Session(AgentSettings(auto_reconnect=True, **settings))
        session.open()
        session.receive(ResponseRequired(7, SAID))
        assert session.turn is not None
        session.speak(session.turn, said)
        return session.memory()

    def again(self, memory: Memory) -> Session:
        return Session(AgentSettings(greeting="another"), memory=memory)

    def test_config_again_no_second_greeting_and_a_partial_answer_is_closed(self) -> None:
        """A4, A5: session B of protocol.md 9.2."""
        session = self.again(self.dropped("We do. "))
        assert session.open() == [Config(ConfigFlags(auto_reconnect=True)), begin(""), Response(7, "", True)]
        assert session.turn is not None
        assert session.turn.complete

    def test_an_answer_that_had_not_begun_is_given_here(self) -> None:
        """A5."""
        session = self.again(self.dropped())
        assert session.open() == [Config(ConfigFlags(auto_reconnect=True)), begin("")]
        assert session.turn is not None
        assert (session.turn.response_id, session.turn.transcript) == (7, SAID)
        assert session.finish(session.turn, "We do.") == [Response(7, "We do.", True)]

    def test_a_finished_answer_is_left_alone(self) -> None:
        before = Session(AgentSettings())
        before.open()
        before.receive(ResponseRequired(7))
        assert before.turn is not None
        before.finish(before.turn, "Yes.")
        session = self.again(before.memory())
        assert session.open() == [begin("")]
        assert session.turn is None

    def test_a_call_that_was_not_greeted_yet_is_greeted(self) -> None:
        before = Session(AgentSettings(**BY_NAME))
        before.open()
        session = self.again(before.memory())
        assert session.open() == [CONFIG]
        assert session.receive(INES) == [begin("Hi Ines, hello.")]

    def test_the_old_maximum_is_forgotten(self) -> None:
        """A6."""
        session = self.again(self.dropped("We do. "))
        session.open()
        session.receive(ResponseRequired(1))
        assert session.turn is not None
        assert session.turn.response_id == 1

    def test_an_id_repeated_by_the_platform_is_answered_afresh(self) -> None:
        """A5: after the closing frame, and before anything was said."""
        for said in ("We do. ", ""):
            session = self.again(self.dropped(said))
            session.open()
            session.receive(ResponseRequired(7, SAID))
            assert session.turn is not None
            assert session.finish(session.turn, "We do.") == [Response(7, "We do.", True)]

    def test_an_id_repeated_while_it_is_answered_here_goes_on(self) -> None:
        session = self.again(self.dropped())
        session.open()
        turn = session.turn
        assert turn is not None
        session.speak(turn, "We ")
        session.receive(ResponseRequired(7, SAID))
        assert session.turn is turn

    def test_settings_are_those_the_call_started_with(self) -> None:
        session = self.again(self.dropped(fallback_text="as before"))
        assert session.settings.fallback_text == "as before"

    def test_a_pending_action_and_the_interrupt_counter_go_on(self) -> None:
        before = Session(AgentSettings())
        before.open()
        before.interrupt("one")
        before.receive(ResponseRequired(1))
        assert before.turn is not None
        before.finish(before.turn, "Bye!", EndCall())
        session = self.again(before.memory())
        session.open()
        assert session.receive(ReminderRequired(2)) == [Response(2, "", True, end_call=True)]
        assert session.interrupt("two")[0].interrupt_id == 2  # type: ignore[union-attr]

    def test_digits_that_were_pressed_are_not_pending(self) -> None:
        session = self.again(Memory(AgentSettings(), greeted=True, pending_action=PressDigits("1")))
        assert session.pending_action is None

    def test_the_old_socket_goes_quiet_and_is_not_closed(self) -> None:
        """A14."""
        old = Session(AgentSettings())
        old.open()
        old.receive(ResponseRequired(1))
        turn = old.turn
        assert turn is not None
        memory = old.detach()
        assert memory.newest is turn
        assert old.speak(turn, "late") == []
        assert old.receive(ResponseRequired(2)) == []
