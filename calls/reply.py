"""One reply, from the request to its last frame: asks the responder, keeps the deadlines, falls back.
What may be said is session.py's business; this only makes sure that something is, and in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from agents.actions import Action
from agents.responders.base import (
    Done,
    Event,
    ListenDifferently,
    Protect,
    Responder,
    Text,
    ToBrowser,
    ToolFinished,
    ToolStarted,
    Usage,
)
from calls.notebook import Notebook
from calls.notes import FAILED, FELL_BACK, TIMED_OUT
from calls.protocol import Metadata, ToolCallInvocation, ToolCallResult
from calls.session import Session
from calls.turns import Outgoing, Turn

log = logging.getLogger("calls.reply")

# A responder that never stops is cut here: about a quarter of an hour of speech.
LONGEST_REPLY = 15_000
# A responder that never waits for anything must not keep other calls waiting.
EVENTS_IN_A_ROW = 20


class Line(Protocol):
    """The call a reply belongs to."""

    session: Session
    notebook: Notebook

    def responder(self) -> Responder: ...

    async def deliver(self, frames: Sequence[Outgoing]) -> None: ...

    def own(self, work: Any, name: str) -> asyncio.Task[None]: ...


class Reply:
    """The answer to one turn, as a task. It ends in exactly one final frame, unless the caller moves on."""

    def __init__(self, line: Line, turn: Turn) -> None:
        self.line = line
        self.turn = turn
        self._has_spoken = False  # the responder itself; a hold line does not count
        self._timers: list[asyncio.TimerHandle] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to answer, and to watch the clock."""
        agent = self.line.session.settings
        self._task = self.line.own(self._run(), f"reply {self.turn.response_id}")
        if agent.hold_line:
            self._after(agent.hold_after_s, self._hold)
        self._after(agent.first_text_s, self._no_text)
        self._after(agent.reply_s, self._too_long)

    def stop(self) -> None:
        """The caller has moved on: the responder is closed at its next await, upstream included."""
        self._cancel_timers()
        if self._task is not None:
            self._task.cancel()

    # ------------------------------------------------------------------ the responder's part

    async def _run(self) -> None:
        try:
            await self._stream()
        except Exception as error:
            # whatever a responder raises is its own affair; the caller still gets an answer
            log.exception("The responder failed in call %s, turn %d", self.line.notebook.call_id, self.turn.response_id)
            await self._fall_back(FAILED, f"{type(error).__name__}: {error}")
        else:
            await self._conclude()
        finally:
            self._cancel_timers()

    async def _stream(self) -> None:
        in_a_row = 0
        async with aclosing(self.line.responder().reply(self.turn)) as events:  # type: ignore[type-var]
            async for event in events:
                await self._on(event)
                if not self.line.session.is_current(self.turn):
                    return
                in_a_row += 1
                if in_a_row % EVENTS_IN_A_ROW == 0:
                    await asyncio.sleep(0)

    async def _on(self, event: Event) -> None:
        session, turn = self.line.session, self.turn
        match event:
            case Text(text):
                await self._speak(text)
            case Done(text, action):
                self._has_spoken = self._has_spoken or bool(text.strip()) or action is not None
                await self._conclude(text, action)
            case Protect():
                turn.protected = True
            case Usage(model, read, written):
                self.line.notebook.used(turn, model, read, written)
            case _:
                await self.line.deliver(_side_frames(session, event))

    async def _speak(self, text: str) -> None:
        if len(self.turn.text) + len(text) > LONGEST_REPLY:
            raise ValueError(f"the reply is longer than {LONGEST_REPLY} characters")
        self._has_spoken = self._has_spoken or bool(text.strip())
        await self.line.deliver(self.line.session.speak(self.turn, text))

    async def _conclude(self, text: str = "", action: Action | None = None) -> None:
        """The responder is done: end the turn, or say something in its place if it said nothing."""
        if self._has_spoken:
            await self.line.deliver(self.line.session.finish(self.turn, text, action))
        else:
            await self._fall_back(FELL_BACK, "the responder had nothing to say")

    # ------------------------------------------------------------------ the clock's part

    async def _hold(self) -> None:
        if not self.turn.text:
            line = self.line.session.settings.hold_line.strip() + " "
            await self.line.deliver(self.line.session.speak(self.turn, line))

    async def _no_text(self) -> None:
        if not self._has_spoken:
            await self._give_up(f"no first words within {self.line.session.settings.first_text_s:g} s")

    async def _too_long(self) -> None:
        await self._give_up(f"not finished within {self.line.session.settings.reply_s:g} s")

    async def _give_up(self, why: str) -> None:
        log.warning("Call %s, turn %d: %s", self.line.notebook.call_id, self.turn.response_id, why)
        await self._fall_back(TIMED_OUT, why)
        self.stop()

    async def _fall_back(self, outcome: str, why: str) -> None:
        """Says the fallback text in the responder's place and ends the turn, if it is still wanted."""
        session, turn = self.line.session, self.turn
        if not session.is_current(turn):
            return
        self.line.notebook.went(turn, outcome, why)
        gap = " " if turn.text and not turn.text[-1].isspace() else ""
        await self.line.deliver(session.finish(turn, gap + session.settings.fallback_text, meant=False))

    def _after(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(seconds, lambda: self.line.own(work(), "deadline")))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()


def _side_frames(session: Session, event: Event) -> list[Outgoing]:
    """Frames that are no speech."""
    match event:
        case ToolStarted(call_id, name, arguments):
            return [ToolCallInvocation(call_id, name, arguments)]
        case ToolFinished(call_id, content, successful):
            return [ToolCallResult(call_id, content, successful)]
        case ListenDifferently():
            return session.listen(**msgspec.structs.asdict(event))
        case ToBrowser(metadata):
            return [Metadata(metadata)]
    raise TypeError(f"a responder yields events, not {type(event).__name__}")
