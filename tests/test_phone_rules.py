"""What the pretend platform notices when a server breaks a rule, and when it does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest import IsolatedAsyncioTestCase, TestCase

import pytest

from calls import protocol
from calls.phone import Conversation, RuleError, Rules
from tests.phone import dial
from tests.puppet import Line, serving


class Deviations(IsolatedAsyncioTestCase):
    """Each broken rule is noticed, and said in a sentence."""

    async def broken(self, *messages: Any, kind: str = "response_required") -> list[str]:
        """What is noted when a server greets, is asked once, and then sends these messages."""

        async def send(line: Line) -> None:
            await line.say(0, "Hello.")
            await line.next(kind)
            for message in messages:
                await line.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
            await line.echo_all()

        async with serving(send) as url, dial(url, deviations=True) as phone:
            await phone.greeting()
            await phone.ask("Hello?")
            await phone.ping()
        return phone.violations

    async def test_a_strict_phone_stops_at_the_first(self) -> None:
        async def wrong(line: Line) -> None:
            await line.socket.send(b"{}")

        with pytest.raises(RuleError, match="binary"):
            async with serving(wrong) as url, dial(url) as phone:
                await phone.greeting()

    async def test_one_that_nobody_waited_for_fails_the_test_at_its_end(self) -> None:
        sent = asyncio.Event()

        async def wrong(line: Line) -> None:
            await line.say(0, "Hello.")
            await line.say(0, "Hello.")
            sent.set()

        with pytest.raises(AssertionError, match="final frame"):
            async with serving(wrong) as url, dial(url):
                await sent.wait()

    async def test_what_nobody_waited_for_breaks_the_quiet(self) -> None:
        async def talks(line: Line) -> None:
            await line.say(0, "Hello.")
            await line.next("update_only")
            await line.send("metadata", metadata={"answer": "to nothing"})
            await line.echo_all()

        async with serving(talks) as url, dial(url) as phone:
            await phone.greeting()
            await phone.update("I was", turntaking="user_turn")
            with pytest.raises(RuleError, match="Metadata"):
                await phone.quiet()

    async def test_types_and_names(self) -> None:
        good = {"response_type": "response", "response_id": 1, "content": "a", "content_complete": True}
        unnamed = {name: value for name, value in good.items() if name != "response_type"}
        for frame, why in [
            ({**good, "response_id": "1"}, "response_id"),
            ({**good, "response_id": 1.0}, "response_id"),
            ({**good, "content": None}, "content"),
            ({**good, "content_complete": "true"}, "content_complete"),
            ({**good, "transfer_number": None}, "transfer_number"),
            ({**good, "end_call": True, "digit_to_press": "1"}, "at most one action"),
            ({**good, "content_complete": False, "end_call": True}, "final frame"),
            ({**good, "endcall": True}, "endcall is not a field"),
            ({**good, "response_type": "speech"}, "response_type"),
            (unnamed, "response_type is missing"),
            ([], "array"),
            ("hello", "malformed"),
            (b"{}", "binary"),
        ]:
            with self.subTest(str(frame)):
                (sentence,) = await self.broken(frame)
                assert why in sentence

    async def test_order(self) -> None:
        def say(number: int, text: str, done: bool = True) -> dict[str, Any]:
            return {
                "response_type": "response",
                "response_id": number,
                "content": text,
                "content_complete": done,
            }

        def cut_in(number: int, done: bool = True) -> dict[str, Any]:
            frame = {"response_type": "agent_interrupt", "interrupt_id": number}
            return {**frame, "content": "Now", "content_complete": done}

        def tool(kind: str, **fields: str) -> dict[str, Any]:
            return {"response_type": f"tool_call_{kind}", "tool_call_id": "a", **fields}

        call = tool("invocation", name="look", arguments="{}")
        for messages, why in [
            ([{"response_type": "config", "config": {}}], "config is only valid as the first frame"),
            ([say(1, "", done=False)], "empty frame"),
            ([say(1, "a"), say(1, "b")], "response 1 goes on after its final frame"),
            ([say(9, "a")], "response 9 was never asked for"),
            ([say(0, "a")], "response 0 goes on after its final frame"),
            ([cut_in(1), say(1, "a")], "the agent_interrupt that cancelled it"),
            ([cut_in(1), cut_in(1)], "interrupt 1 goes on after its final frame"),
            ([cut_in(1, done=False), cut_in(2), cut_in(1)], "interrupt 1 goes on after a newer one"),
            ([cut_in(2), cut_in(1)], "lower than one before"),
            ([{"response_type": "ping_pong", "timestamp": 7}], "timestamp 7"),
            ([call, call], "used before"),
            ([tool("invocation", name="look", arguments="[]")], "JSON text of an object"),
            ([tool("result", content="x")], "never invoked"),
        ]:
            with self.subTest(why):
                (sentence,) = await self.broken(*messages)
                assert why in sentence

    async def test_a_correct_server_is_not_blamed(self) -> None:
        frames = [
            {"response_type": "update_agent", "agent_config": {"responsiveness": 0.4}},
            {"response_type": "tool_call_invocation", "tool_call_id": "a", "name": "look", "arguments": "{}"},
            {"response_type": "tool_call_result", "tool_call_id": "a", "content": "x", "successful": True},
            {"response_type": "metadata", "metadata": {}},
            {"response_type": "response", "response_id": 1, "content": "", "content_complete": True},
            {
                "response_type": "agent_interrupt",
                "interrupt_id": 1,
                "content": "Hm",
                "content_complete": True,
            },
        ]
        assert await self.broken(*frames) == []


class Staleness(TestCase):
    """A late frame is bad luck until the server is known to have read the newer request."""

    def setUp(self) -> None:
        self.rules = Rules(Conversation())
        self.rules.opened(0.0)
        self.ask(1)
        self.say(1, "Sure, ", done=False)

    def ask(self, number: int) -> None:
        self.rules.sent({"interaction_type": "response_required", "response_id": number}, 0.0)

    def say(self, number: int, text: str, *, done: bool = True) -> None:
        self.rules.hear(protocol.encode(protocol.Response(number, text, done)), 0.0)

    def test_a_crossing_frame_is_dropped(self) -> None:
        self.ask(2)
        self.say(1, "late")
        assert self.rules.stale == [protocol.Response(1, "late", True)]
        assert self.rules.violations == []
        assert self.rules.replies[1].superseded

    def test_after_the_newer_answer_began_it_is_a_fault(self) -> None:
        self.ask(2)
        self.say(2, "Now ", done=False)
        self.say(1, "late")
        assert "response 1 goes on although" in self.rules.violations[0]

    def test_after_the_echo_of_a_later_ping_it_is_a_fault(self) -> None:
        self.ask(2)
        self.rules.sent({"interaction_type": "ping_pong", "timestamp": 5}, 0.0)
        self.rules.hear(protocol.encode(protocol.Pong(5)), 0.0)
        self.say(1, "late")
        assert "response 1 goes on although" in self.rules.violations[0]

    def test_a_greeted_caller_is_not_greeted_again(self) -> None:
        self.rules.opened(0.0)
        self.say(0, "Hello again!")
        assert "greeted a second time" in self.rules.violations[0]

    def test_ids_may_start_again_on_a_new_socket(self) -> None:
        self.ask(7)
        self.rules.opened(0.0)
        self.say(0, "")
        self.ask(2)
        self.say(2, "Yes.")
        assert self.rules.violations == []
        assert self.rules.replies[2].text == "Yes."
