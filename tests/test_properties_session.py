"""The rules of a call under any order of events: requests, replies to any turn old or new, interrupts, lost sockets.
The machine keeps its own small model of what the platform wants, and holds every frame against it."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from agents.actions import Action, EndCall, PressDigits, Transfer
from agents.settings import AgentSettings
from calls.protocol import (
    AgentInterrupt,
    BadFrame,
    CallDetails,
    CallObject,
    Config,
    PingPong,
    Pong,
    ReminderRequired,
    Response,
    ResponseRequired,
    UpdateAgent,
    UpdateOnly,
)
from calls.session import Session
from calls.turns import Close, Outgoing, Turn

ids = st.sampled_from([1, 1, 2, 2, 3, 4, 9])
words = st.sampled_from(["", "Yes. ", "word " * 900])
actions = st.sampled_from([None, None, EndCall(), Transfer("+15035550177", True), PressDigits("204#")])
agents = st.builds(
    AgentSettings,
    greeting=st.sampled_from(["Hello.", "Hello {{name}}."]),
    speak_first=st.booleans(),
    auto_reconnect=st.booleans(),
    call_details=st.booleans(),
    responsiveness=st.sampled_from([None, 0.5]),
)


class CallMachine(RuleBasedStateMachine):
    @initialize(agent=agents)
    def dial(self, agent: AgentSettings) -> None:
        self.agent = agent
        self.turns: list[Turn] = []  # all that were ever to be answered, on any socket
        self.silent: list[Session] = []  # detached or closed
        self.interrupts = 0
        self.greetings = 0  # begin messages with words in them
        self.pending: Action | None = None
        self.greeted = False
        self.left: Turn | None = None
        self.open_socket(Session(agent))

    def open_socket(self, session: Session) -> None:
        self.session = session
        self.asked: int | None = None  # the newest request on this socket
        self.wanted: int | None = self.left.response_id if self.left else None
        self.done = self.left is None
        self.begun = False
        frames = session.open()
        assert [isinstance(frame, Config) for frame in frames[1:]] == [False] * len(frames[1:])
        self.hear(frames)
        if session.turn is not None:
            self.turns.append(session.turn)

    # ------------------------------------------------------------------ what the platform makes of it

    def hear(self, frames: list[Outgoing]) -> list[Outgoing]:
        for frame in frames:
            assert isinstance(frame, Config | Pong | UpdateAgent | Response | AgentInterrupt)
            if isinstance(frame, Response):
                self.hear_begin(frame) if frame.response_id == 0 else self.hear_answer(frame)
            if isinstance(frame, Response | AgentInterrupt) and not frame.content_complete:
                assert frame.action is None
                assert frame.content
        return frames

    def hear_begin(self, frame: Response) -> None:
        assert not self.begun, "a second begin message on one socket"
        assert self.asked is None, "a begin message after a request"
        self.begun, self.greeted = frame.content_complete, True
        self.greetings += bool(frame.content)
        assert self.greetings <= 1, "the caller is greeted twice"

    def hear_answer(self, frame: Response) -> None:
        assert frame.response_id == self.wanted, "an answer that nobody waits for"
        assert not self.done, "words after the last frame of an answer"
        self.done = frame.content_complete

    # ------------------------------------------------------------------ what the platform sends

    @rule(number=ids, reminder=st.booleans())
    def request(self, number: int, reminder: bool) -> None:
        before = self.session.turn
        stale = number <= self.asked if self.asked is not None else self.is_under_way(number)
        kind = ReminderRequired if reminder else ResponseRequired
        if not stale and not self.session.closed:
            self.asked = self.wanted = number
            self.done, self.greeted = False, True
        frames = self.hear(self.session.receive(kind(number)))
        if stale or self.session.closed:
            assert (frames, self.session.turn) == ([], before)
            return
        turn = self.session.turn
        assert turn is not None
        assert turn is not before
        self.turns.append(turn)
        assert (turn.response_id, turn.is_reminder, turn.pending_action) == (number, reminder, self.pending)
        repeated = [(frame.content, frame.action) for frame in frames]  # type: ignore[union-attr]
        assert repeated == ([("", self.pending)] if reminder and self.pending else [])

    def is_under_way(self, number: int) -> bool:
        """The platform asks again for what the last socket left, and its answer has begun here already."""
        turn = self.session.turn
        return turn is not None and turn.response_id == number and bool(turn.text)

    @rule(number=st.integers())
    def ping(self, number: int) -> None:
        assert self.hear(self.session.receive(PingPong(number))) == ([] if self.session.closed else [Pong(number)])

    @rule()
    def update(self) -> None:
        turn = self.session.turn
        assert self.hear(self.session.receive(UpdateOnly(turntaking="user_turn"))) == []
        assert self.session.turn is turn

    @rule(name=st.sampled_from([{}, {"name": "Ines"}]))
    def details(self, name: dict[str, Any]) -> None:
        greeted = self.greeted or self.session.closed
        frames = self.hear(self.session.receive(CallDetails(CallObject(retell_llm_dynamic_variables=name))))
        assert len(frames) == (not greeted)

    @rule()
    def the_wait_for_details_is_over(self) -> None:
        waited = self.session.waits_for_details
        assert len(self.hear(self.session.details_late())) == waited

    # ------------------------------------------------------------------ what the server does

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), text=words)
    def speak(self, data: Any, text: str) -> None:
        turn = data.draw(st.sampled_from([*self.turns, *self.turns[-1:] * 9]))
        heard = self.is_heard(turn)
        frames = self.hear(self.session.speak(turn, text))
        assert "".join(frame.content for frame in frames) == (text if heard else "")  # type: ignore[union-attr]
        assert not any(frame.content_complete for frame in frames)  # type: ignore[union-attr]

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), text=words, action=actions, meant=st.booleans())
    def finish(self, data: Any, text: str, action: Action | None, meant: bool) -> None:
        turn = data.draw(st.sampled_from([*self.turns, *self.turns[-1:] * 9]))
        heard = self.is_heard(turn)
        frames = self.hear(self.session.finish(turn, text, action, meant=meant))
        if not heard:
            assert frames == []
            return
        assert "".join(frame.content for frame in frames) == text  # type: ignore[union-attr]
        assert [frame.action for frame in frames if frame.content_complete] == [action]  # type: ignore[union-attr]
        if meant:
            self.pending = lasting(action)

    def is_heard(self, turn: Turn) -> bool:
        """Whether the platform would take words for this turn now."""
        return turn is self.turns[-1] and turn is self.session.turn and not self.done

    @rule(text=words, action=actions, protected=st.booleans())
    def interrupt(self, text: str, action: Action | None, protected: bool) -> None:
        frames = self.hear(self.session.interrupt(text, action, protected=protected))
        if self.session.closed:
            assert frames == []
            return
        self.interrupts += 1
        self.wanted, self.done = None, True
        self.pending = lasting(action) or self.pending
        assert {frame.interrupt_id for frame in frames} == {self.interrupts}  # type: ignore[union-attr]
        assert [frame.content_complete for frame in frames] == [False] * (len(frames) - 1) + [True]  # type: ignore[union-attr]
        assert {frame.no_interruption_allowed for frame in frames} == {protected}  # type: ignore[union-attr]

    # ------------------------------------------------------------------ how sockets end

    @precondition(lambda self: not self.session.closed)
    @rule(taken_over=st.booleans())
    def next_socket(self, taken_over: bool) -> None:
        """The connection is lost, or a second socket takes the call over (A4, A5, A14)."""
        self.left = None if self.done else self.session.turn
        said = bool(self.left and self.left.text)
        greeted = self.greeted
        memory = self.session.detach() if taken_over else self.session.memory()
        if taken_over:
            self.silent.append(self.session)
        self.open_socket(Session(self.agent, memory=memory))
        assert not greeted or self.begun
        assert self.done == (self.left is None or said)

    @rule(binary=st.booleans(), chance=st.integers(0, 9))
    def bad_frame(self, binary: bool, chance: int) -> None:
        if chance:
            return  # most calls never see one
        frames = self.session.refuse(BadFrame("bad", binary=binary))
        assert [frame.code for frame in frames if isinstance(frame, Close)] == [1002] * (
            self.session not in self.silent
        )
        if self.session not in self.silent:
            self.silent.append(self.session)

    @precondition(lambda self: self.silent)
    @rule(data=st.data())
    def after_its_end_a_socket_is_silent(self, data: Any) -> None:
        gone = data.draw(st.sampled_from(self.silent))
        assert gone.closed
        said = [
            *gone.receive(ResponseRequired(10)), *gone.receive(PingPong(1)), *gone.receive(CallDetails(CallObject())),
            *gone.details_late(), *gone.interrupt("Hello?"), *gone.refuse(BadFrame("bad")), *gone.farewell(),
        ]  # fmt: skip
        for turn in self.turns:
            if turn is not self.session.turn:
                said += [*gone.speak(turn, "late"), *gone.finish(turn, "late", EndCall())]
        assert said == []


def lasting(action: Action | None) -> Action | None:
    """Digits are not pressed twice; hanging up and transferring are still wanted after an interruption."""
    return None if isinstance(action, PressDigits) else action


TestCall = CallMachine.TestCase
TestCall.settings = settings(deadline=None, max_examples=250, stateful_step_count=40)
