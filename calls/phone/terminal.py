"""A call by hand: what is typed is said or done, line by line. What is shown is screen.py's."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from calls.phone.conversation import NOMINAL_PACE
from calls.phone.errors import HungUpError, PhoneError, RefusedError, SilenceError, UnreachableError
from calls.phone.screen import Screen, ScreenPhone

STDIN = 0
CONFORMANT, DEVIATED, NOT_CONNECTED = 0, 1, 2

KEEPALIVE_S = 2.0

HELP = """  anything else       what the caller says
  /interrupt [text]   talk over the agent
  /silence            say nothing until the agent is asked to remind you
  /digits 123#        press keys
  /drop               lose the connection and dial again
  /frames             show or hide the frames themselves
  /hangup             end the call (so do Ctrl-D and Ctrl-C)"""


async def converse(screen: Screen, url: str, call_id: str | None, **options: Any) -> int:
    """One call (options as for `ScreenPhone`) until somebody ends it; the exit code.

    A person at the screen has a prompt, and an agent who takes time to speak.
    """
    phone = ScreenPhone(
        screen,
        url,
        call_id,
        keepalive=KEEPALIVE_S,
        reconnects=True,
        pace=NOMINAL_PACE if screen.interactive else None,
        updates=True,
        strict=False,
        **options,
    )
    screen.note(f"calling {phone.url}")
    await Conversing(phone, screen, patient=not screen.interactive).run()
    return DEVIATED if screen.objections else CONFORMANT


class Conversing:
    """One call by hand, until somebody ends it. `patient` awaits each reply before it reads the next line."""

    def __init__(self, phone: ScreenPhone, screen: Screen, *, patient: bool) -> None:
        self.phone, self.screen, self.patient = phone, screen, patient
        self._waiting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """From the handshake to the hang-up. Raises PhoneError when nobody can be dialled."""
        await self.phone.dial()
        try:
            await self._follow(0)
            async for line in self._lines():
                self.screen.took(line)
                if not await self._obey(line.strip()):
                    break
        finally:
            await self.phone.hang_up()
            self.screen.last_line("hung up")

    async def _lines(self) -> AsyncIterator[str]:
        """What is typed, until there is no more or the call is over."""
        lines, over = read_lines(), asyncio.create_task(self.phone.over.wait())
        while not over.done():
            self.screen.prompt()
            line = asyncio.create_task(lines.get())
            await asyncio.wait({line, over}, return_when=asyncio.FIRST_COMPLETED)
            if self.phone.over.is_set() or line.result() is None:
                return
            yield line.result() or ""

    async def _obey(self, line: str) -> bool:
        """Does what a line says; false when that ends the call."""
        match line:
            case "":
                pass
            case "/hangup":
                return False
            case "/help":
                self.screen.line(HELP)
            case "/frames":
                self.phone.shows_frames = not self.phone.shows_frames
            case "/drop":
                await self._drop()
            case _:
                await self._speak(line)
        return True

    async def _drop(self) -> None:
        await self.phone.drop()
        await self.phone.reconnect()
        self.screen.note("the connection was lost, the platform has dialled again")

    async def _speak(self, line: str) -> None:
        with suppress(HungUpError):  # which is on the screen by now
            response_id = await self._ask(line)
            if response_id is not None:
                await self._follow(response_id)

    async def _ask(self, line: str) -> int | None:
        """Sends what asks for a reply; the id of that."""
        command, _, rest = line.partition(" ")
        match command:
            case "/interrupt":
                return await self.phone.barge_in(rest or "Wait a moment.")
            case "/silence":
                return await self.phone.remind()
            case "/digits" if re.fullmatch(r"[0-9*#]+", rest):
                return await self.phone.send_digits(rest)
            case _ if not line.startswith("/"):
                return await self.phone.ask(line)
        self.screen.note("no such command; /help lists them, and keys are 0-9, * and #")
        return None

    async def _follow(self, response_id: int) -> None:
        """Sees that a reply comes: at once if patient, otherwise meanwhile."""
        if self.patient:
            return await self._await(response_id)
        task = asyncio.create_task(self._await(response_id))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return None

    async def _await(self, response_id: int) -> None:
        try:
            await self.phone.reply(response_id)
        except SilenceError as error:
            self.screen.objection(str(error))
        except HungUpError:
            return  # which is on the screen by now


def is_interactive() -> bool:
    """Whether a person types."""
    return os.isatty(STDIN)


def read_lines() -> asyncio.Queue[str | None]:
    """Lines of standard input as they come, then None.

    A thread, because a file cannot be polled; the bare descriptor, because a thread that holds the lock of
    `sys.stdin` cannot be left behind at exit.
    """
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with suppress(RuntimeError):  # the call is over, nobody listens
            for line in _split(STDIN):
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _split(descriptor: int) -> Iterator[str]:
    rest = b""
    while chunk := _read(descriptor):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def advice(error: PhoneError) -> str:
    """What went wrong, and what to do about it."""
    match error:
        case UnreachableError():
            return f"{error}. Is the server running? `make run` starts it; another URL can be given as argument."
        case RefusedError(status=403):
            return f"{error}. Check the key (--key); the log of the server says what it did not like."
        case RefusedError(status=404):
            return f"{error}. The path is wrong: it ends in /llm-websocket, the key goes into --key."
        case RefusedError():
            return f"{error}. The log of the server says why."
    return str(error)
