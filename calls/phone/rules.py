"""What the platform makes of a server's frames (protocol.md 3 and 4), and which of its rules they break.
Values in, no clock, no socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from calls.phone.conversation import Conversation, Reply
from calls.protocol import (
    AgentInterrupt,
    Config,
    ConfigFlags,
    Outbound,
    Pong,
    Response,
    Speech,
    ToolCallInvocation,
    ToolCallResult,
    decode_outbound,
)


class Heard(NamedTuple):
    """A frame the platform understood, and the reply it became part of, if any."""

    frame: Outbound
    reply: Reply | None = None


class Rules:
    """One call, as the rules have it so far: feed it what was sent and heard.

    `violations` are sentences; `stale` is what came for an id that is no longer wanted and was dropped.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.config = ConfigFlags()
        self.frames: list[Outbound] = []
        self.stale: list[Speech] = []
        self.violations: list[str] = []
        self.replies: dict[int, Reply] = {}
        self.interrupts: dict[int, Reply] = {}
        self.newest = 0
        self._reached = 0  # the newest request that the server is known to have read
        self._pings: list[tuple[int, int]] = []
        self._tool_calls: set[str] = set()
        self._heard_here = self._asked_here = self._reopening = False

    @property
    def greeted(self) -> bool:
        """The begin message is over, or too late to be wanted."""
        return self.newest > 0 or (0 in self.replies and self.replies[0].complete)

    def opened(self, now: float) -> None:
        """A socket was opened, the first one of the call or another."""
        self._reopening = self.greeted
        self._heard_here = self._asked_here = False
        self._pings.clear()
        self.replies.setdefault(0, Reply(0, now))

    def sent(self, frame: Mapping[str, Any], now: float) -> None:
        """The platform sent this frame; odd ones ask for nothing."""
        kind, number, stamp = (frame.get(key) for key in ("interaction_type", "response_id", "timestamp"))
        if kind == "ping_pong" and type(stamp) is int:
            self._pings.append((stamp, self.newest))
        if kind in ("response_required", "reminder_required") and type(number) is int:
            self._ask(number, now)

    def _ask(self, number: int, now: float) -> None:
        """A lower or equal id is no new request, except as the first one on a socket (A6, A24, A25)."""
        if self._asked_here and number <= self.newest:
            return
        _supersede(self.replies)
        self._reached = min(self._reached, number - 1)
        self._asked_here, self.newest = True, number
        self.replies[number] = Reply(number, now)

    def hear(self, message: str | bytes, now: float) -> Heard | None:
        """A message of the server's; None when the platform would drop it unread."""
        first, self._heard_here = not self._heard_here, True
        frame = self._understand(message)
        if frame is None:
            return None
        self.frames.append(frame)
        match frame:
            case Response():
                return Heard(frame, self._response(frame, now))
            case AgentInterrupt():
                return Heard(frame, self._interrupt(frame, now))
            case Config(flags):
                self._configure(flags, first)
            case Pong(timestamp):
                self._pong(timestamp)
            case ToolCallInvocation() | ToolCallResult():
                self._tool_call(frame)
        return Heard(frame)

    def _violated(self, sentence: str) -> None:
        self.violations.append(sentence)

    def _understand(self, message: str | bytes) -> Outbound | None:
        if isinstance(message, bytes):
            self._violated(f"a binary frame of {len(message)} bytes: the platform closes the call with 1007")
            return None
        try:
            found = self._typed(msgspec.json.decode(message), message)
            frame = decode_outbound(msgspec.json.encode(found))
        except msgspec.DecodeError as error:
            self._violated(f"the platform drops this frame, {error}: {message[:200]}")
            return None
        for name in _unknown_names(found, frame):
            self._violated(f"{name} is not a field of this kind of frame: {message[:200]}")
        return frame

    def _typed(self, found: Any, message: str) -> Any:
        """A frame without response_type counts as a response, which hides mistakes (1.7)."""
        if not isinstance(found, dict) or "response_type" in found:
            return found
        self._violated(f"response_type is missing: {message[:200]}")
        return {"response_type": "response", **found}

    def _configure(self, flags: ConfigFlags, first: bool) -> None:
        if not first:
            self._violated("config is only valid as the first frame on a socket")
        self.config = flags

    def _pong(self, timestamp: int) -> None:
        ping = next((ping for ping in self._pings if ping[0] == timestamp), None)
        if ping is None:
            self._violated(f"a ping_pong with timestamp {timestamp}, which no ping had")
            return
        self._pings.remove(ping)
        self._reached = max(self._reached, ping[1])

    def _tool_call(self, frame: ToolCallInvocation | ToolCallResult) -> None:
        known = frame.tool_call_id in self._tool_calls
        if isinstance(frame, ToolCallInvocation):
            self._tool_calls.add(frame.tool_call_id)
            if known:
                self._violated(f"tool_call_id {frame.tool_call_id!r} was used before")
            if not _is_json_object(frame.arguments):
                self._violated(f"arguments is not the JSON text of an object: {frame.arguments[:200]}")
        elif not known:
            self._violated(f"a result for tool_call_id {frame.tool_call_id!r}, which was never invoked")
        item = msgspec.to_builtins(frame)
        self.conversation.note({"role": item.pop("response_type"), **item})

    def _response(self, frame: Response, now: float) -> Reply | None:
        number = frame.response_id
        if number == 0 and self._reopening:
            self._begin_again(frame)
            return None
        reply = self.replies.get(number)
        if reply is None or reply.complete:
            why = "was never asked for" if reply is None else "goes on after its final frame"
            self._violated(f"response {number} {why}: {frame.content[:80]!r}")
            return None
        if number != self.newest:
            self._drop(frame, number)
            return None
        self._reached = number
        if reply.superseded:
            self._violated(f"response {number} goes on after the agent_interrupt that cancelled it")
            return None
        return self._take(reply, frame, now)

    def _begin_again(self, frame: Response) -> None:
        """A later socket of a call that was greeted opens with an empty begin message, once (A4)."""
        self._reopening = False
        if frame.content or not frame.content_complete:
            self._violated(f"the caller is greeted a second time: {frame.content[:80]!r}")

    def _drop(self, frame: Response, number: int) -> None:
        """Too late: bad luck while the newer request was under way, a fault once the server has read it."""
        self.stale.append(frame)
        if number < self._reached:
            self._violated(f"response {number} goes on although the server had read request {self._reached}")

    def _interrupt(self, frame: AgentInterrupt, now: float) -> Reply | None:
        number = frame.interrupt_id
        if number not in self.interrupts:
            self._begin_interrupt(number, now)
        reply = self.interrupts[number]
        if not reply.complete and not reply.superseded:
            return self._take(reply, frame, now)
        why = "its final frame" if reply.complete else "a newer one"
        self._violated(f"interrupt {number} goes on after {why}: {frame.content[:80]!r}")
        return None

    def _begin_interrupt(self, number: int, now: float) -> None:
        if number < max(self.interrupts, default=1):
            self._violated(f"interrupt_id {number} is lower than one before")
        self._silence_agent(now)
        self.interrupts[number] = Reply(number, now)

    def _silence_agent(self, now: float) -> None:
        """An interrupt stops what the agent says and cancels what it was about to say."""
        _supersede(self.replies)
        _supersede(self.interrupts)
        self.conversation.cut(now)

    def _take(self, reply: Reply, frame: Speech, now: float) -> Reply:
        if not frame.content and not frame.content_complete:
            self._violated(f"an empty frame that does not complete response {reply.id}")
        reply.take(frame, now)
        if frame.content:
            self.conversation.hear_agent(reply, frame.content, now, frame.no_interruption_allowed)
        return reply


def _supersede(replies: Mapping[int, Reply]) -> None:
    for reply in replies.values():
        reply.superseded = reply.superseded or not reply.complete


def _unknown_names(found: Any, frame: Outbound) -> list[str]:
    known = {"response_type", *frame.__struct_fields__}
    return [name for name in found if name not in known]


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False
