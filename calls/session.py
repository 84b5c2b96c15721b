"""The rules of a live call: what is said first, whose turn it is, what may still be sent.
Values in, frames out (protocol.md sections 4 and 10); no clock, no event loop, no database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from agents.actions import Action, EndCall, PressDigits
from calls.protocol import (
    AgentConfig,
    AgentInterrupt,
    BadFrame,
    CallDetails,
    CallObject,
    Config,
    ConfigFlags,
    PingPong,
    Pong,
    Received,
    ReminderRequired,
    Request,
    Response,
    ResponseRequired,
    UpdateAgent,
    action_fields,
    pieces,
)
from calls.turns import REMINDER, RESPONSE, BadFrames, Close, Memory, Outgoing, Turn

if TYPE_CHECKING:
    from agents.settings import AgentSettings

# How long a greeting that needs the caller's name waits for `call_details` (A27).
DETAILS_WAIT_S = 2.0

# The reasons of the platform's own guide (A8).
NOT_TEXT = "Cannot find corresponding Retell LLM."
NOT_JSON = "Cannot parse incoming message."
OUR_FAULT = "Server error."


class Session:
    """One socket of one call. Feed it frames, send what it returns, and ask it whose turn it is.

    `agents` maps the platform's agent ids to settings, for a socket whose URL named no agent.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        agents: Mapping[str, AgentSettings] | None = None,
        memory: Memory | None = None,
        bad_frames: BadFrames | None = None,
    ) -> None:
        self.settings = memory.settings if memory else settings
        self.agents = {} if memory and memory.call else dict(agents or {})
        self.call = memory.call if memory else None
        self.greeted = bool(memory and memory.greeted)
        self.interrupts = memory.interrupts if memory else 0
        self.pending_action = _lasting(memory.pending_action if memory else None)
        self.bad_frames = bad_frames or BadFrames()
        self.turn: Turn | None = None
        self.newest_id: int | None = None
        self.closed = False
        self._left_over = memory.newest if memory else None

    # ------------------------------------------------------------------ opening

    def open(self) -> list[Outgoing]:
        """The first frames on a fresh socket: config, then the begin message unless it has to wait."""
        frames = [*self._config(), *self._listening()]
        if self.greeted:
            return [*frames, Response(0, "", True), *self._take_up()]
        return frames if self.waits_for_details else [*frames, *self._begin()]

    @property
    def waits_for_details(self) -> bool:
        """The begin message cannot be chosen before `call_details` is in, or its time is up."""
        if self.greeted or self.closed or self.call is not None or not self._asks_for_details:
            return False
        return bool(self.agents) or bool(self.settings.speak_first and self.settings.greeting_variables)

    def details_late(self) -> list[Outgoing]:
        """The wait of `DETAILS_WAIT_S` is over: greet without knowing the caller (A27)."""
        return self._begin() if self.waits_for_details else []

    @property
    def _asks_for_details(self) -> bool:
        """Wanted by the agent, or needed to find out which agent this call is for."""
        return self.settings.call_details or bool(self.agents)

    def _config(self) -> list[Outgoing]:
        agent = self.settings
        flags = ConfigFlags(agent.auto_reconnect, self._asks_for_details, agent.transcript_with_tool_calls)
        return [] if flags == ConfigFlags() else [Config(flags)]

    def _listening(self) -> list[Outgoing]:
        """The agent's own way of listening, where it differs from the platform's."""
        wanted = {name: getattr(self.settings, name) for name in AgentConfig.__struct_fields__}
        return self.listen(**wanted)

    def listen(self, **wanted: Any) -> list[Outgoing]:
        """Live settings (3.5); None keeps a value. Raises ValueError or TypeError outside its range."""
        given = {name: value for name, value in wanted.items() if value is not None}
        return [UpdateAgent(AgentConfig(**given))] if given else []

    def _begin(self) -> list[Outgoing]:
        self.greeted = True
        words = self.settings.greet(self.call.variables if self.call else {})
        return list(_responses(0, words, done=True))

    def _take_up(self) -> list[Outgoing]:
        """The newest request of the last socket: answer it if nothing was said, else only end it (A5)."""
        left, self._left_over = self._left_over, None
        if left is None or left.complete:
            return []
        self.turn = msgspec.structs.replace(left, inherited=True, text="", protected=False)
        if not left.text:
            return []
        self.turn.complete = True
        return [Response(left.response_id, "", True)]

    # ------------------------------------------------------------------ listening

    def receive(self, frame: Received) -> list[Outgoing]:
        """The frames to send at once. A request is answered by whoever follows `turn`."""
        if self.closed:
            return []
        match frame:
            case PingPong(timestamp):
                return [Pong(timestamp)]
            case ResponseRequired() | ReminderRequired():
                return self._request(frame)
            case CallDetails(call):
                return self._details(call)
        return []

    def refuse(self, frame: BadFrame) -> list[Outgoing]:
        """What a frame that is none leads to: the end of the call, unless the operator spares it (A8)."""
        if self.closed or (self.bad_frames.ignore_text and not frame.binary):
            return []
        return self.close(self.bad_frames.code, NOT_TEXT if frame.binary else NOT_JSON)

    def close(self, code: int, reason: str) -> list[Outgoing]:
        """Ends the call; nothing more is sent or listened to."""
        self.closed, self.turn = True, None
        return [Close(code, reason)]

    def farewell(self) -> list[Outgoing]:
        """The call was to end long ago and the platform has not closed: hang up on purpose (A15)."""
        if self.closed or not isinstance(self.pending_action, EndCall):
            return []
        return self.close(1000, "Call ended.")

    def detach(self) -> Memory:
        """Another socket has this call now: say no more here (A14), and hand over what it must know."""
        memory = self.memory()
        self.closed, self.turn = True, None
        return memory

    def memory(self) -> Memory:
        """What this call's next socket has to know."""
        return Memory(self.settings, self.call, self.greeted, self.turn, self.interrupts, self.pending_action)

    def _details(self, call: CallObject) -> list[Outgoing]:
        known, self.call = self.call, call
        switched = known is None and self._choose_agent(call.agent_id)
        frames = self._listening() if switched else []
        return frames if self.greeted else [*frames, *self._begin()]

    def _choose_agent(self, platform_agent_id: str) -> bool:
        chosen = self.agents.get(platform_agent_id) if platform_agent_id else None
        if chosen is None or chosen == self.settings:
            return False
        self.settings = chosen
        return True

    def _request(self, request: Request) -> list[Outgoing]:
        if self._is_old(request):
            return []
        self.newest_id = request.response_id
        self.greeted = True  # A26: a begin message that has not been sent by now would be stale
        self.turn = self._turn(request)
        if self.turn.is_reminder and self.pending_action is not None:
            return self.finish(self.turn, action=self.pending_action)
        return []

    def _is_old(self, request: Request) -> bool:
        """A lower id is a fault of the platform's (A24), the same one is already being answered (A25)."""
        turn = self.turn
        if turn is not None and turn.inherited and turn.response_id == request.response_id:
            return bool(turn.text)
        return self.newest_id is not None and request.response_id <= self.newest_id

    def _turn(self, request: Request) -> Turn:
        return Turn(
            request.response_id,
            REMINDER if isinstance(request, ReminderRequired) else RESPONSE,
            request.transcript,
            request.transcript_with_tool_calls,
            self.call or CallObject(),
            self.pending_action,
        )

    # ------------------------------------------------------------------ speaking

    def is_current(self, turn: Turn) -> bool:
        """Whether anything may still be said for this turn."""
        return turn is self.turn and not turn.complete

    def speak(self, turn: Turn, text: str) -> list[Outgoing]:
        """The next piece of a reply; nothing once the caller has moved on."""
        if not text or not self.is_current(turn):
            return []
        turn.text += text
        return list(_responses(turn.response_id, text, protected=turn.protected))

    def finish(self, turn: Turn, text: str = "", action: Action | None = None, *, meant: bool = True) -> list[Outgoing]:
        """The last piece of a reply, with its action; nothing once the caller has moved on.

        `meant` is false for words that stand in for the responder's: they decide nothing about
        an action that is still pending (A16).
        """
        if not self.is_current(turn):
            return []
        turn.text, turn.action, turn.complete = turn.text + text, action, True
        turn.transcript, turn.items = (), None  # nobody asks again, and they hold the whole frame they came in
        if meant:
            self.pending_action = _lasting(action)
        return list(_responses(turn.response_id, text, done=True, protected=turn.protected, action=action))

    def interrupt(self, text: str, action: Action | None = None, *, protected: bool = True) -> list[Outgoing]:
        """Speech nobody asked for (4.7); the running reply is given up, as the platform does."""
        if self.closed:
            return []
        self.interrupts += 1
        self.turn = None
        self.pending_action = _lasting(action) or self.pending_action
        *first, last = pieces(text)
        fields: dict[str, Any] = {"no_interruption_allowed": protected}
        final = {**fields, **action_fields(action)}
        final.pop("show_transferee_as_caller", None)  # not documented for this frame (3.4)
        return [
            *(AgentInterrupt(self.interrupts, piece, False, **fields) for piece in first),
            AgentInterrupt(self.interrupts, last, True, **final),
        ]


def _responses(
    response_id: int,
    text: str,
    *,
    done: bool = False,
    protected: bool = False,
    action: Action | None = None,
) -> list[Response]:
    """Text as frames of one response; only the last may complete it and carry the action."""
    *first, last = pieces(text)
    return [
        *(Response(response_id, piece, False, no_interruption_allowed=protected) for piece in first),
        Response(response_id, last, done, no_interruption_allowed=protected, **action_fields(action)),
    ]


def _lasting(action: Action | None) -> Action | None:
    """Hanging up or transferring is still wanted after an interruption; the same digits twice are not."""
    return None if isinstance(action, PressDigits) else action
