"""One socket of one call: owns the socket and the tasks that answer on it, and decides nothing.
The order to read a frame's way in: this file, protocol.py, session.py, recorder.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from agents.responders import RESPONDERS, Responder
from calls import desk, gate, live, protocol, recorder
from calls.arrival import Arrival, arrive
from calls.notebook import Notebook
from calls.recorder import Recorder
from calls.reply import Reply
from calls.session import DETAILS_WAIT_S, OUR_FAULT, Session
from calls.turns import Close, Outgoing, Turn

log = logging.getLogger("calls")

# The platform hangs up after `end_call`; should it forget to, this frees what the call holds (A15).
FAREWELL_S = 60.0
# How long a socket that ends waits for its own tasks, and, when the server stops, for its record.
STOP_WITHIN_S = 2.0
SAVE_WITHIN_S = 5.0

NORMAL, LOST = (1000, 1001, 1005), 1006


class CallConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    """The platform's socket. Needs no channel layer: with one, a lost Redis would end every call."""

    channel_layer_alias = None
    session: Session
    notebook: Notebook
    recorder: Recorder

    async def __call__(self, scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        # Channels' own loop wraps every message in a task and skips `disconnect` when a handler
        # raises or the server cancels; a call needs neither and must always be ended.
        self.scope, self.base_send = scope, send
        self.tasks: set[asyncio.Task[None]] = set()
        self.timers: list[asyncio.TimerHandle] = []
        self.following: Turn | None = None
        self.reply: Reply | None = None
        self.brain: Responder | None = None
        self.closing: Close | None = None
        self.arrived = False
        gone: int | None = None
        try:
            while True:
                await self.dispatch(await receive())
        except StopConsumer as stop:
            gone = stop.args[0]
        except asyncio.CancelledError:
            await self._end(None)
            await self._saved()
            raise
        finally:
            await self._end(gone)

    async def dispatch(self, message: Mapping[str, Any]) -> None:
        # not Channels' own: that waits for Django's shared database thread before every frame,
        # so one slow query elsewhere would delay every pong
        match message["type"]:
            case "websocket.receive":
                await self.receive(message.get("text"), message.get("bytes"))
            case "websocket.connect":
                await self.connect()
            case "websocket.disconnect":
                raise StopConsumer(message.get("code", LOST))

    # ------------------------------------------------------------------ the handshake

    async def connect(self) -> None:
        """Lets the socket in or not, and says the first words."""
        rules = arrival_rules()
        knock = gate.knock(self.scope, rules.trusted_proxies)
        known = await desk.current().look_up(knock.call_id)
        arrival = arrive(knock, known, rules)
        if isinstance(arrival, gate.Refused):
            log.warning("Refused a socket (%s): %s", arrival.reason, arrival.why)
            await self.close(code=4403)
            return
        await self.accept()
        self._take(arrival)
        frames = self.session.open()
        self.follow()
        await self.deliver(frames)
        if self.session.waits_for_details:
            self._after(DETAILS_WAIT_S, self._details_late)

    def _take(self, arrival: Arrival) -> None:
        self.session, self.notebook = arrival.session, arrival.notebook
        self.arrived = True
        live.enter(self.notebook.call_id, self)
        self.notebook.opened(source=arrival.source)
        self.recorder = recorder.current()
        self.recorder.follow(self.notebook)

    async def _details_late(self) -> None:
        await self.deliver(self.session.details_late())

    # ------------------------------------------------------------------ the way of a frame

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """One frame: decode, note, let the session decide, send, see whose turn it is."""
        if not self.arrived or self.session.closed:
            return
        try:
            frame = protocol.decode(text_data, cap=settings.LLM_MAX_FRAME_BYTES)
        except protocol.BadFrame as bad:
            await self._bad(bad)
            return
        try:
            self._note(frame, text_data or "")
            frames = self.session.receive(frame)
            self.notebook.settings = self.session.settings  # details may have named another agent
            self.follow()
            await self.deliver(frames)
        except Exception:
            # a fault of ours, not of the frame: the platform is told so, and the record says why
            log.exception("Call %s ends: a frame could not be handled", self.notebook.call_id)
            await self.deliver(self.session.close(1011, OUR_FAULT))

    def _note(self, frame: protocol.Received, text: str) -> None:
        if isinstance(frame, protocol.Odd) and self.notebook.first_odd(frame.kind):
            log.warning("Call %s: ignored an odd frame, %s (%s)", self.notebook.call_id, frame.why, frame.kind)
        self.notebook.received(frame, text)
        self.recorder.touch(self.notebook)

    async def _bad(self, bad: protocol.BadFrame) -> None:
        log.warning("Call %s: %s", self.notebook.call_id, bad.why)
        self.notebook.note("bad frame", {"why": bad.why})
        self.recorder.touch(self.notebook)
        await self.deliver(self.session.refuse(bad))
        self.follow()

    async def deliver(self, frames: Sequence[Outgoing]) -> None:
        """Sends what the session said to send, in order, and notes it."""
        for frame in frames:
            if isinstance(frame, Close):
                self.closing = frame
                await self.close(code=frame.code, reason=frame.reason)
                continue
            text = protocol.encode(frame)
            self.notebook.sent(frame, text)
            await self.base_send({"type": "websocket.send", "text": text})
            if isinstance(frame, protocol.Response | protocol.AgentInterrupt) and frame.end_call:
                self._after(FAREWELL_S, self._farewell)
        if frames:
            self.recorder.touch(self.notebook)

    def follow(self) -> None:
        """Makes the running reply agree with whose turn the session says it is now."""
        turn = self.session.turn
        if turn is self.following:
            return
        self.following = turn
        if self.reply is not None:
            self.reply.stop()
            self.reply = None
        if turn is None:
            return
        self.notebook.asked(turn)
        if not turn.complete:
            self.reply = Reply(self, turn)
            self.reply.start()

    def responder(self) -> Responder:
        """The responder of the agent that has the call; raises what its making raises."""
        agent = self.session.settings
        if self.brain is None or self.brain.agent is not agent:
            self.brain = RESPONDERS[agent.responder](agent)
        return self.brain

    async def say(self, text: str) -> None:
        """Speech nobody asked for; the running reply is given up (protocol.md 4.7)."""
        frames = self.session.interrupt(text)
        self.follow()
        await self.deliver(frames)

    # ------------------------------------------------------------------ tasks and the end

    def own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that does not outlive this socket."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("Call %s: %s failed", self.notebook.call_id, task.get_name(), exc_info=error)

    def _after(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        self.timers.append(loop.call_later(seconds, lambda: self.own(work(), work.__name__)))

    async def _farewell(self) -> None:
        await self.deliver(self.session.farewell())

    def detach(self) -> Session:
        """A newer socket has the call: this one goes quiet and is left to time out (A14)."""
        self._stop()
        self.arrived = False
        return self.session

    def _stop(self) -> None:
        for timer in self.timers:
            timer.cancel()
        if self.reply is not None:
            self.reply.stop()
        for task in self.tasks:
            task.cancel()

    async def _end(self, code: int | None) -> None:
        """However the socket ended, its tasks end with it and the record says how. Safe to repeat."""
        self._stop()
        if self.tasks:
            _, stubborn = await asyncio.wait(self.tasks, timeout=STOP_WITHIN_S)
            for task in stubborn:
                log.error("Call %s: %s does not stop when cancelled", self.notebook.call_id, task.get_name())
        if not self.arrived:
            return
        self.arrived = False
        by, reason = self._who_closed(code)
        live.part(self.notebook.call_id, self.session.memory(), self.notebook)
        self.notebook.closed(by, self.closing.code if self.closing else code, reason)
        live.leave(self.notebook.call_id, self)
        self.recorder.release(self.notebook)

    def _who_closed(self, code: int | None) -> tuple[str, str]:
        if self.closing is not None:
            return "server", self.closing.reason
        if code is None:
            return "network", "the server stopped"
        return ("network", "") if code == LOST else ("platform", "")

    async def _saved(self) -> None:
        """The server stops: this call's record first, if the database lets it."""
        if hasattr(self, "notebook"):
            await self.recorder.saved(self.notebook, SAVE_WITHIN_S)


def arrival_rules() -> gate.Rules:
    """Who is let in, from the settings."""
    return gate.Rules(
        allowed=gate.networks(settings.LLM_ALLOWED_ADDRESSES),
        trusted_proxies=gate.networks(settings.TRUSTED_PROXIES),
        open_url=settings.LLM_OPEN_URL,
        max_calls=settings.LLM_MAX_CALLS,
    )
