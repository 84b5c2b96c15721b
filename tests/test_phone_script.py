"""Sessions that are played from a file: what counts as a deviation, and what does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest import IsolatedAsyncioTestCase

import pytest

from calls.phone import DeviationError, Phone, Player, ScriptError, call_id_of, read_script
from tests.puppet import SESSIONS, Line, Talk, replaying, serving

HI = '{"response_type":"response","response_id":0,"content":"Hi.","content_complete":true}'
OUT_1 = f'{{"dir":"out","frame":{HI}}}'
IN_1 = '{"dir":"in","frame":{"interaction_type":"response_required","response_id":1,"transcript":[]}}'


class Scripts(IsolatedAsyncioTestCase):
    async def play(self, text: str, *talks: Talk, **options: Any) -> Player:
        async with serving(*talks) as url:
            lines = read_script(text)
            player = Player(Phone(url, call_id_of(lines)), lines, **options)
            await player.play()
            return player

    async def deviation(self, text: str, *talks: Talk, **options: Any) -> str:
        with pytest.raises(DeviationError) as caught:
            await self.play(text, *talks, **options)
        return str(caught.value)

    async def test_every_session_agrees_with_itself(self) -> None:
        for name, frames in [("a", 14), ("b", 6), ("c", 3), ("d", 3)]:
            with self.subTest(name):
                text = (SESSIONS / f"{name}.jsonl").read_text()
                assert (await self.play(text, replaying(text))).compared == frames

    async def test_a_session_can_keep_its_times(self) -> None:
        text = (SESSIONS / "b.jsonl").read_text()
        began = asyncio.get_running_loop().time()
        assert (await self.play(text, replaying(text), speed=100.0)).compared == 6
        assert asyncio.get_running_loop().time() - began >= (23.4 - 14.1) / 100

    async def test_every_changed_frame_is_a_deviation(self) -> None:
        for name in "abcd":
            text = (SESSIONS / f"{name}.jsonl").read_text()
            rows = text.splitlines()
            for number, row in enumerate(rows):
                frame = json.loads(row)["frame"]
                if frame.get("response_type") not in ("response", "agent_interrupt", "tool_call_result"):
                    continue
                with self.subTest(f"{name} {number + 1}"):
                    changed = [*rows]
                    changed[number] = json.dumps({"dir": "out", "frame": {**frame, "content": "Something else"}})
                    said = await self.deviation(text, replaying("\n".join(changed)), timeout=2.0)
                    assert said.startswith(f"line {number + 1}: ")

    async def test_a_deviation_shows_both_frames_and_where_they_differ(self) -> None:
        said = await self.deviation(OUT_1, lambda line: line.say(0, "Hello.", end_call=True))
        assert said.splitlines() == [
            "line 1: another frame than expected",
            f"  expected  {HI}",
            f'  got       {HI.replace("Hi.", "Hello.")[:-1]},"end_call":true}}',
            '  content: expected "Hi.", got "Hello."',
            "  end_call: expected nothing, got true",
        ]

    async def test_defaults_need_not_be_written(self) -> None:
        await self.play(OUT_1, lambda line: line.say(0, "Hi.", end_call=False, no_interruption_allowed=False))

    async def test_a_missing_frame_is_a_deviation(self) -> None:
        said = await self.deviation(OUT_1, Line.echo_all, timeout=0.01)
        assert said.startswith("line 1: waited 0.01 s in vain for another frame\n  expected  {")

    async def test_a_frame_too_many_is_a_deviation(self) -> None:
        async def generous(line: Line) -> None:
            await line.say(0, "Hi.")
            await line.send("metadata", metadata={})
            await line.next("ping_pong")
            await line.send("ping_pong", timestamp=1)

        ping = '{"dir":"in","frame":{"interaction_type":"ping_pong","timestamp":1}}'
        pong = '{"dir":"out","frame":{"response_type":"ping_pong","timestamp":1}}'
        said = await self.deviation("\n".join([OUT_1, ping, pong]), generous)
        assert said.startswith("at the end: a frame that the script does not have")

    async def test_a_broken_rule_is_a_deviation(self) -> None:
        said = await self.deviation(OUT_1, lambda line: line.send(response_id=0, content="Hi."))
        assert "content_complete" in said

    async def test_a_closed_socket_is_a_deviation(self) -> None:
        said = await self.deviation(OUT_1, lambda line: line.socket.close(1011, "Server error."))
        assert "the socket closed with 1011 'Server error.'" in said

    async def test_tool_call_ids_may_differ_if_they_do_so_everywhere(self) -> None:
        text = (SESSIONS / "a.jsonl").read_text()
        await self.play(text, replaying(text.replace("tc_a1", "other")))
        mixed = text.replace("tc_a1", "other", 1)
        said = await self.deviation(text, replaying(mixed))
        assert 'tool_call_id: expected "other", got "tc_a1"' in said

    async def test_what_a_newer_request_overtook_is_not_compared(self) -> None:
        text = "\n".join([OUT_1, IN_1, IN_1.replace("1,", "2,", 1), OUT_1.replace(":0,", ":2,")])

        async def eager(line: Line) -> None:
            await line.say(0, "Hi.")
            await line.next("response_required")
            await line.say(1, "Too late.")
            await line.next("response_required")
            await line.say(2, "Hi.")

        await self.play(text, eager)

    async def test_a_line_can_drop_the_socket(self) -> None:
        again = OUT_1.replace("Hi.", "")
        await self.play(
            "\n".join([OUT_1, '{"dir":"drop"}', again]),
            *[lambda line: line.say(0, "Hi.")],
            *[lambda line: line.say(0, "")],
        )

    def test_a_wrong_script_is_said_so(self) -> None:
        for text, why in [
            ("", "the script is empty"),
            ("\n{", "line 2: "),
            ('{"dir":"sideways"}', 'line 1: "dir" must be'),
            ('{"dir":"in"}', 'line 1: there is no "frame"'),
            ('{"dir":"out","frame":{"response_type":"speech"}}', "line 1: "),
            ("[]", "line 1: "),
        ]:
            with self.subTest(text), pytest.raises(ScriptError, match=why):
                read_script(text)
