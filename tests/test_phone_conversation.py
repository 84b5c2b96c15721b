"""What the pretend platform takes for said: transcripts, turns, and words that take time."""

from __future__ import annotations

import json
from unittest import IsolatedAsyncioTestCase, TestCase

from calls.phone import Conversation, Reply
from tests.phone import dial
from tests.puppet import Line, serving


class Transcripts(IsolatedAsyncioTestCase):
    async def test_requests_carry_words_and_tool_calls_when_wanted(self) -> None:
        requests = []

        async def tool(line: Line) -> None:
            await line.send("config", config={"transcript_with_tool_calls": True})
            await line.say(0, "Hello.")
            await line.next("response_required")
            await line.send("tool_call_invocation", tool_call_id="a", name="look", arguments="{}")
            await line.send("tool_call_result", tool_call_id="a", content="ready", successful=True)
            await line.say(1, "It is ready.")
            requests.append(await line.next("response_required"))
            await line.say(2, "Bye.")

        async with serving(tool) as url, dial(url, words=True) as phone:
            await phone.greeting()
            await phone.say("Is it ready?")
            await phone.press("5")
        (request,) = requests
        assert [item["role"] for item in request["transcript_with_tool_calls"]] == [
            "agent",
            "user",
            "tool_call_invocation",
            "tool_call_result",
            "agent",
            "dtmf",
            "user",
        ]
        assert request["transcript"][-1]["content"] == "Pressed Button: 5"
        assert [word["word"] for word in request["transcript"][1]["words"]] == ["Is", "it", "ready?"]

    async def test_a_caller_who_goes_on_talking_extends_the_utterance(self) -> None:
        requests = []

        async def wait(line: Line) -> None:
            await line.say(0, "")
            requests.extend([await line.next("response_required"), await line.next("response_required")])
            await line.say(2, "Sure.")

        async with serving(wait) as url, dial(url) as phone:
            await phone.greeting()
            first = await phone.ask("I wanted to")
            assert (await phone.say("ask.")).text == "Sure."
            assert not (await phone.reply(first)).complete
        assert [row["transcript"][-1]["content"] for row in requests] == ["I wanted to", "I wanted to ask."]

    async def test_barge_in_cuts_the_agent_short(self) -> None:
        heard = []

        async def chatty(line: Line) -> None:
            await line.say(0, "")
            await line.next("response_required")
            await line.say(1, "Good news, it is ready.", done=False)
            heard.extend([await line.next("update_only"), await line.next("response_required")])
            await line.say(2, "Yes?")

        async with serving(chatty) as url, dial(url) as phone:
            await phone.greeting()
            await phone.ask("Hello")
            await phone.next_frame()
            assert (await phone.interrupt("Wait", heard="Good news,")).text == "Yes?"
        said = ["Hello", "Good news,", "Wait"]
        assert [[row["content"] for row in frame["transcript"]] for frame in heard] == [said, said]
        assert heard[0]["turntaking"] == "user_turn"

    async def test_turns_are_announced_when_wanted(self) -> None:
        turns = []

        async def note(line: Line) -> None:
            await line.say(0, "Hello.")
            async for message in line.socket:
                frame = json.loads(message)
                turns.append((frame["interaction_type"], frame.get("turntaking"), len(frame["transcript"])))
                if frame["interaction_type"] == "response_required":
                    await line.say(1, "Yes.")

        async with serving(note) as url, dial(url, updates=True) as phone:
            await phone.greeting()
            await phone.say("Are you open?")
        assert turns == [
            ("update_only", "agent_turn", 1),
            ("update_only", None, 1),
            ("update_only", "user_turn", 2),
            ("response_required", None, 2),
            ("update_only", "agent_turn", 3),
            ("update_only", None, 3),
        ]


class Speaking(TestCase):
    """The agent's words take time when there is a pace."""

    def setUp(self) -> None:
        self.conversation = Conversation(pace=2.0)
        self.reply = Reply(1, 0.0)

    def said(self, now: float) -> list[str]:
        return [row["content"] for row in self.conversation.transcript(now)]

    def test_words_are_heard_one_after_the_other(self) -> None:
        self.conversation.hear_agent(self.reply, "one two ", 10.0, False)
        self.conversation.hear_agent(self.reply, "three four", 10.1, False)
        assert self.said(10.0) == []
        assert self.said(10.5) == ["one"]
        assert self.said(11.6) == ["one two three"]
        assert self.conversation.spoken_at == 12.0

    def test_what_was_cut_was_never_said(self) -> None:
        self.conversation.hear_agent(self.reply, "one two three four", 10.0, False)
        self.conversation.cut(10.5)
        assert self.said(99.0) == ["one"]

    def test_what_was_cut_may_be_told(self) -> None:
        self.conversation.hear_agent(self.reply, "one two ", 10.0, False)
        self.conversation.note({"role": "dtmf", "digit": "1"})
        self.conversation.hear_agent(self.reply, "three four", 10.0, False)
        self.conversation.cut(10.5, heard="one two three")
        assert self.said(10.5) == ["one two three"]
        assert self.conversation.items(10.5)[0] == {"role": "dtmf", "digit": "1"}

    def test_word_timings_never_go_back(self) -> None:
        conversation = Conversation()
        for text in ("one two three", "four five"):
            conversation.hear_agent(Reply(1, 0.0), text, 0.0, False)
        rows = conversation.transcript(0.0, words=True)
        starts = [word["start"] for row in rows for word in row["words"]]
        assert starts == sorted(set(starts))
        assert len(starts) == 5

    def test_protected_words_cannot_be_cut(self) -> None:
        self.conversation.hear_agent(self.reply, "one two three four", 10.0, True)
        self.conversation.cut(10.5)
        assert self.said(10.5) == ["one"]
        assert self.said(99.0) == ["one two three four"]
