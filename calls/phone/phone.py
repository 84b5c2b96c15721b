"""The platform's side of the LLM WebSocket: one call, in which it speaks for a caller and keeps the transcript.
No audio, no Django, and no part of the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from agents.actions import Action
from calls.phone.conversation import Conversation, Reply
from calls.phone.errors import RuleError
from calls.phone.handshake import address
from calls.phone.line import KEEPALIVE_LOST_S, Line
from calls.phone.rules import Heard, Rules
from calls.protocol import Config, ConfigFlags, Outbound, Speech


class Phone(Line):
    """One call, seen from the platform.

    `url` is what an operator configures; the call id becomes its last path segment, unless `url_has_call_id`.
    `details` are laid over the call object that a server gets when its config asks for it; None sends none.
    `keepalive` is the seconds between pings once the config asks for them; None never pings by itself.
    `reconnects`: dial again when the keepalive or the connection is lost, as often as the platform does.
    `pace` is how fast the agent speaks, in words a second; None speaks at once.
    `words`: transcripts carry word timings. `updates`: announce turns by update_only, as the platform does.
    `timeout`, in seconds, bounds every wait that is not given its own limit.
    `strict`: once a rule was broken, a wait that is not over already ends with RuleError.
    """

    def __init__(
        self,
        url: str,
        call_id: str | None = None,
        *,
        details: Mapping[str, Any] | None = {},
        keepalive: float | None = None,
        keepalive_lost: float = KEEPALIVE_LOST_S,
        reconnects: bool = False,
        headers: Mapping[str, str] | None = None,
        pace: float | None = None,
        words: bool = False,
        updates: bool = False,
        timeout: float = 5.0,
        strict: bool = True,
        url_has_call_id: bool = False,
    ) -> None:
        self.call_id = call_id or f"call_{uuid4().hex}"
        self.conversation = Conversation(pace, self.now())
        super().__init__(
            url if url_has_call_id else address(url, self.call_id),
            Rules(self.conversation),
            headers=headers,
            keepalive=keepalive,
            keepalive_lost=keepalive_lost,
            reconnects=reconnects,
            timeout=timeout,
            strict=strict,
        )
        self.details = None if details is None else {**_call_object(self.call_id), **details}
        self.words, self.updates = words, updates
        self.action: Action | None = None

    # ------------------------------------------------------------------ what was observed

    @property
    def frames(self) -> list[Outbound]:
        """Everything the server sent in this call that could be read, stale frames included."""
        return self.rules.frames

    @property
    def stale(self) -> list[Speech]:
        """What the platform dropped because a newer request had been made."""
        return self.rules.stale

    @property
    def unread(self) -> list[Outbound]:
        """What came and nobody has waited for, in order; neither stale frames nor the echoes of `ping`."""
        return self._unread

    @property
    def replies(self) -> dict[int, Reply]:
        """By response id; 0 is the begin message."""
        return self.rules.replies

    @property
    def transcript(self) -> list[dict[str, Any]]:
        """The conversation so far, as the next frame will carry it."""
        return self.conversation.transcript(self.now(), words=self.words)

    # ------------------------------------------------------------------ the caller

    async def greeting(self) -> str:
        """The begin message, once it is complete; empty when the caller is to speak first."""
        return (await self.reply(0)).text

    async def say(self, text: str) -> Reply:
        """The caller says something and is answered."""
        return await self.reply(await self.ask(text))

    async def ask(self, text: str = "", *, response_id: int | None = None) -> int:
        """The caller says something, which cuts the agent short; the id under which the answer is wanted."""
        self.conversation.cut(self.now())
        if text:
            self.conversation.hear_caller(text, self.now())
        if self.updates:
            await self.update(turntaking="user_turn")
        return await self._request("response_required", response_id)

    async def silence(self) -> Reply:
        """The caller has been quiet for too long; the server reminds."""
        return await self.reply(await self.remind())

    async def remind(self) -> int:
        """The same without waiting: the id under which the reminder is wanted."""
        return await self._request("reminder_required")

    async def interrupt(self, text: str, *, heard: str | None = None) -> Reply:
        """Barge-in: the agent is cut off after `heard`, or where it was, and the caller is answered."""
        return await self.reply(await self.barge_in(text, heard=heard))

    async def barge_in(self, text: str, *, heard: str | None = None) -> int:
        """The same without waiting: the id under which the answer is wanted."""
        self.conversation.cut(self.now(), heard)
        self.conversation.hear_caller(text, self.now())
        await self.update(turntaking="user_turn")
        return await self._request("response_required")

    async def press(self, digits: str) -> Reply:
        """The caller presses keys, which count as words (protocol.md 4.4), and is answered."""
        return await self.reply(await self.send_digits(digits))

    async def send_digits(self, digits: str) -> int:
        """The same without waiting: the id under which the answer is wanted."""
        for digit in digits:
            self.conversation.note({"role": "dtmf", "digit": digit})
        return await self.ask(" ".join(f"Pressed Button: {digit}" for digit in digits))

    async def update(self, text: str = "", *, turntaking: str | None = None) -> None:
        """An update_only, with more of the caller's words if any; no answer is due."""
        if text:
            self.conversation.hear_caller(text, self.now())
        frame = {"interaction_type": "update_only", **self._transcripts()}
        await self.send({**frame, "turntaking": turntaking} if turntaking else frame)

    async def send_details(self) -> None:
        """The call object; sent by itself when the server's config asks for it and there are `details`."""
        await self.send({"interaction_type": "call_details", "call": self.details or {}})

    # ------------------------------------------------------------------ waiting

    async def reply(self, response_id: int, within: float | None = None) -> Reply:
        """The answer to a request, once it is complete or superseded."""
        return await self._finished(self.rules.replies, response_id, f"the end of response {response_id}", within)

    async def agent_interrupt(self, interrupt_id: int = 1) -> Reply:
        """Speech the server begins by itself, once it is complete."""
        what = f"the end of interrupt {interrupt_id}"
        return await self._finished(self.rules.interrupts, interrupt_id, what)

    async def acted(self) -> Action:
        """What the platform does after the words are spoken: hang up, transfer or press digits."""
        return await self._until(lambda: self.action, "an action")

    async def next_frame(self, within: float | None = None) -> Outbound:
        """The next of `unread`, as soon as there is one."""
        await self._until(lambda: self._unread or None, "another frame", within)
        return self._unread.pop(0)

    async def quiet(self) -> None:
        """Raises RuleError if the server sent anything that nobody waited for.

        Frames arrive in order: what the server sent by the time it read this ping is here before the echo.
        """
        await self.ping()
        if self._unread:
            raise RuleError(f"the server should have been quiet but sent {self._unread}")

    async def _finished(self, replies: dict[int, Reply], number: int, what: str, within: float | None = None) -> Reply:
        def finished() -> Reply | None:
            reply = replies.get(number)
            return reply if reply and (reply.complete or reply.superseded) else None

        reply = await self._until(finished, what, within)
        seen = [place for place, frame in enumerate(self._unread) if any(frame is own for own in reply.frames)]
        del self._unread[: max(seen, default=-1) + 1]
        return reply

    # ------------------------------------------------------------------ the platform's own doing

    def on_action(self, action: Action) -> None:
        """For subclasses: the words are spoken, the action is due."""

    async def respond(self, heard: Heard) -> None:
        """What the platform does by itself upon a frame."""
        reply = heard.reply
        if isinstance(heard.frame, Config):
            await self._follow(heard.frame.config)
        if reply and self.updates and len(reply.frames) == 1 and reply.text:
            await self.update(turntaking="agent_turn")
        if reply and reply.complete:
            left = self.conversation.spoken_at - self.now()
            if left > 0:
                self._start(self._spoken(reply, left))
            else:
                await self._spoken(reply)

    async def _follow(self, config: ConfigFlags) -> None:
        if config.call_details and self.details is not None:
            await self.send_details()
        if config.auto_reconnect and self.keepalive is not None and self._socket:
            self._start(self._keep_alive(self._socket, self.keepalive))

    async def _spoken(self, reply: Reply, left: float = 0.0) -> None:
        """After the last word: the action, unless the caller spoke first (protocol.md 4.6)."""
        if left > 0:
            await asyncio.sleep(left)
        newest = self.rules.interrupts if reply in self.rules.interrupts.values() else self.rules.replies
        if reply.action and reply is newest[max(newest)]:
            self.action = reply.action
            self.on_action(reply.action)
            self._tell()
        if self.updates and reply.text:
            await self.update()

    async def _request(self, kind: str, response_id: int | None = None) -> int:
        number = self.rules.newest + 1 if response_id is None else response_id
        await self.send({"interaction_type": kind, "response_id": number, **self._transcripts()})
        return number

    def _transcripts(self) -> dict[str, Any]:
        found = {"transcript": self.transcript}
        if self.rules.config.transcript_with_tool_calls:
            found["transcript_with_tool_calls"] = self.conversation.items(self.now(), words=self.words)
        return found


def _call_object(call_id: str) -> dict[str, Any]:
    """The call object of an ordinary inbound phone call (protocol.md 5)."""
    return {
        "call_id": call_id,
        "call_type": "phone_call",
        "call_status": "ongoing",
        "agent_id": "agent_phone",
        "agent_version": 1,
        "direction": "inbound",
        "from_number": "+15035550142",
        "to_number": "+15035550100",
    }
