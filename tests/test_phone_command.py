"""`manage.py phone` with its input from a pipe."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from io import StringIO
from pathlib import Path
from unittest import IsolatedAsyncioTestCase
from unittest.mock import patch

from django.core.management import call_command
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from calls.phone import terminal
from tests.puppet import SESSIONS, Line, answers, answers_only, replaying, serving


async def run_process(*arguments: str, said: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command in a process of its own, where there is no database."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "manage.py",
        "phone",
        *arguments,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "DEBUG": "1", "DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate(said.encode())
    return process.returncode or 0, out.decode(), errors.decode()


def exit_code(*arguments: str, **streams: StringIO) -> int:
    """How the command ends."""
    try:
        call_command("phone", *arguments, no_color=True, **streams)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class Terminal(IsolatedAsyncioTestCase):
    """In this process, apart from the first test: a new one takes half a second to begin."""

    async def phone(self, *arguments: str, said: str = "") -> tuple[int, str, str]:
        """Exit code, output and errors of the command; its event loop has a thread to itself."""
        keyboard, typing = os.pipe()
        self.addCleanup(os.close, keyboard)
        os.write(typing, said.encode())
        os.close(typing)
        out, errors = StringIO(), StringIO()
        with patch.object(terminal, "STDIN", keyboard):
            code = await asyncio.to_thread(exit_code, *arguments, stdout=out, stderr=errors)
        return code, out.getvalue(), errors.getvalue()

    async def test_it_works(self) -> None:
        async with serving(answers) as url:
            said = "Is my bike ready?\n/silence\n/interrupt No\n/digits 12#\n/digits x\n/help\n\nBye"
            code, out, errors = await run_process(url, said=said)
        assert (code, errors) == (0, "")
        for line in [
            "agent  Hello.",
            "you    Is my bike ready?",
            "agent  You said Is my bike ready?",
            "agent  Still there?",
            "agent  You said No",
            "agent  You said Pressed Button: 1 Pressed Button: 2 Pressed Button: #",
            "agent  You said Bye",
            "       (hung up)",
        ]:
            assert line in out.splitlines()
        assert re.search(r"\(0\.\d{3} s to first words, 0\.\d{3} s in all\)", out)
        assert "\033" not in out

    async def test_it_says_who_calls(self) -> None:
        paths = []

        async def greet(line: Line) -> None:
            paths.append(line.path)
            await line.send("config", config={"call_details": True, "auto_reconnect": True})
            call = (await line.next("call_details"))["call"]
            name = call["retell_llm_dynamic_variables"]["customer_name"]
            await line.say(0, f"Hi {name}, {call['from_number']}, {call['agent_id']}.")
            await line.echo_all()

        given = [
            "--key",
            "k1",
            "--call-id",
            "call_1",
            "--variable",
            "customer_name=Ines",
            "--agent-id",
            "agent_1",
        ]
        async with serving(greet) as url:
            code, out, _ = await self.phone(url, *given, "--from", "+1503")
        assert (code, paths) == (0, ["/llm-websocket/k1/call_1"])
        assert "agent  Hi Ines, +1503, agent_1." in out

    async def test_a_goodbye_ends_the_call(self) -> None:
        async def bye(line: Line) -> None:
            await line.say(0, "We are\x1b[2J closed.", end_call=True)

        async with serving(bye) as url:
            code, out, _ = await self.phone(url, said="Hello?\n")
        assert code == 0
        assert "(the platform would now hang up)" in out
        assert "Hello?" not in out
        assert "\x1b" not in out

    async def test_the_line_can_be_dropped(self) -> None:
        async def again(line: Line) -> None:
            await line.say(0, "")
            await answers_only(line)

        async with serving(answers, again) as url:
            code, out, _ = await self.phone(url, said="/drop\nHello?\n/hangup\nnever said\n")
        assert code == 0
        assert "agent  Here I am." in out
        assert "never said" not in out

    async def test_faults_are_shown_and_counted(self) -> None:
        async def wrong(line: Line) -> None:
            await line.say(0, "Hello.")
            await line.next("response_required")
            await line.send(response_id=1, content="Yes.", content_complete="true")
            await line.echo_all()

        async with serving(wrong) as url:
            code, out, _ = await self.phone(url, "--timeout", "0.1", "-v", "2", said="Hello?\n")
        assert code == 1
        assert "! the platform drops this frame" in out
        assert "! waited 0.1 s in vain for the end of response 1" in out
        assert '(> {"interaction_type":"response_required","response_id":1' in out

    async def test_a_server_that_closes_is_reported(self) -> None:
        async def close(line: Line) -> None:
            await line.say(0, "Hello.")
            await line.next("response_required")
            await line.socket.close(1011, "Server error.")

        async with serving(close) as url:
            code, out, _ = await self.phone(url, said="Hello?\nStill there?\n")
        assert code == 1
        assert "! the server closed the call with 1011 Server error." in out

    async def test_a_script_is_played(self) -> None:
        session = SESSIONS / "c.jsonl"
        async with serving(replaying(session.read_text())) as url:
            code, out, errors = await self.phone(url, "--script", str(session))
        assert (code, errors) == (0, "")
        assert out == "conformant: 6 lines, 3 frames of the server as written\n"

    async def test_a_deviation_from_the_script_is_told(self) -> None:
        async with serving(answers) as url:
            code, _, errors = await self.phone(url, "--script", str(SESSIONS / "c.jsonl"))
        assert code == 1
        assert errors.startswith("line 1: another frame than expected")

    async def test_what_cannot_be_called_gets_one_line_of_advice(self) -> None:
        def refuse(socket: ServerConnection, request: Request) -> Response:
            return socket.respond(403, "no")

        async with serve(answers, "127.0.0.1", 0, process_request=refuse) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/llm-websocket"
            code, _, errors = await self.phone(url)
            assert (code, len(errors.splitlines())) == (2, 1)
            assert "HTTP 403. Check the key" in errors
        for arguments, why in [
            ([url], "Is the server running?"),
            (["nowhere"], "is no WebSocket URL"),
            ([url, "--script", "missing.jsonl"], "missing.jsonl cannot be played"),
        ]:
            code, _, errors = await self.phone(*arguments)
            assert (code, len(errors.splitlines())) == (2, 1)
            assert why in errors
