"""A responder that does what the caller says, so that a test reads as the call it plays.
Settings for servers that have it: DJANGO_SETTINGS_MODULE=tests.scripted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from agents.actions import EndCall, PressDigits, Transfer
from agents.responders import RESPONDERS
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
from calls import live
from calls.notebook import Notebook
from calls.turns import Turn
from tests.settings import *  # noqa: F403 - how Django settings build on others

log = logging.getLogger("tests.scripted")


class ScriptedResponder(Responder):
    """The caller's last words, after any ">>", are steps separated by "|": each a verb and the rest of it."""

    kind = "scripted"
    label = "Scripted, for tests"

    async def reply(self, turn: Turn) -> AsyncIterator[Event]:
        try:
            for step in self._script(turn).split("|"):
                verb, _, rest = step.strip().partition(" ")
                async for event in getattr(self, f"_{verb}")(rest, turn):
                    yield event
        finally:
            log.info("closed %d", turn.response_id)

    def _script(self, turn: Turn) -> str:
        if turn.is_reminder:
            return "done reminded"
        if "script" in self.agent.responder_settings:
            return self.agent.responder_settings["script"][str(turn.response_id)]
        said = next((said.content for said in reversed(turn.transcript) if said.role == "user"), "done empty")
        return said.rpartition(">>")[2]

    @classmethod
    def check(cls, settings: dict[str, Any]) -> dict[str, str]:
        return {}

    async def _say(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Text(rest + " ")

    async def _say_last(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Text(rest)

    async def _done(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Done(rest)

    async def _protect(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Protect()

    async def _end(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Done(rest, EndCall())

    async def _transfer(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        number, _, words = rest.partition(" ")
        yield Done(words, Transfer(number, True))

    async def _press(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Done("", PressDigits(rest))

    async def _pending(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Done(f"pending {turn.pending_action!r}")

    async def _variables(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Done(json.dumps([turn.variables, turn.call.metadata]))

    async def _tool(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        call_id, name, arguments, result = rest.split(" ")
        yield ToolStarted(call_id, name, arguments)
        yield ToolFinished(call_id, result, successful=result != "failed")

    async def _listen(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield ListenDifferently(**json.loads(rest))

    async def _later_interrupt(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        """Once this reply is complete the call is spoken on, unasked; not if the caller moved on before."""
        line, reply = live.find(turn.call.call_id), asyncio.current_task()
        assert line is not None, "a call's id is known here only from its details"
        assert reply is not None

        def interrupt(reply: asyncio.Task[Any]) -> None:
            if not reply.cancelled():
                line.own(line.say(rest), "later interrupt")

        reply.add_done_callback(interrupt)
        for _ in ():
            yield Text("")

    async def _browser(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield ToBrowser(json.loads(rest))

    async def _usage(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        yield Usage("small", 12, 3)

    async def _nothing(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        for _ in ():
            yield Text("")

    async def _crash(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        raise RuntimeError(rest)
        yield Text("")

    async def _hang(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        await asyncio.Event().wait()
        yield Text("")

    async def _stubborn(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        """Takes no notice of being cancelled the first time."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield Text("stale")
            await asyncio.Event().wait()

    async def _dribble(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        while True:
            yield Text("and ")
            await asyncio.sleep(0.05)

    async def _flood(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        while True:
            yield Text("more ")

    async def _flood_silently(self, rest: str, turn: Turn) -> AsyncIterator[Event]:
        while True:
            yield Text("")


class BrokenResponder(Responder):
    """Cannot even be made."""

    kind = "broken"
    label = "Broken, for tests"

    def __init__(self, agent: Any) -> None:
        raise ValueError("no such model")


_received = Notebook.received


def received(self: Notebook, frame: Any, text: str) -> None:
    """The notebook, with a fault of our own making in it."""
    if "trip over this" in text:
        raise RuntimeError("a fault of ours")
    _received(self, frame, text)


Notebook.received = received  # type: ignore[method-assign]
RESPONDERS |= {responder.kind: responder for responder in (ScriptedResponder, BrokenResponder)}
