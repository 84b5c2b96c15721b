"""A pretend platform in the terminal: type what the caller says, and see the reply stream in.
Only reading and writing lines is here; calls/phone.py plays the platform."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandParser, OutputWrapper
from django.core.management.color import Style, no_style

from agents.actions import Action, EndCall, PressDigits, Transfer
from calls.phone import (
    NOMINAL_PACE,
    Closed,
    Heard,
    HungUpError,
    Phone,
    PhoneError,
    RefusedError,
    Reply,
    SilenceError,
    UnreachableError,
    address,
)
from calls.phone_script import DeviationError, Player, ScriptError, call_id_of, read_script
from calls.protocol import AgentInterrupt, Metadata, Response, ToolCallInvocation, ToolCallResult, UpdateAgent

URL = "ws://127.0.0.1:8000/llm-websocket"
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


class Screen:
    """What the person sees. A prompt waits on the last line, and gives way to whatever is said meanwhile."""

    def __init__(self, out: OutputWrapper, style: Style, *, interactive: bool) -> None:
        self.out, self.style, self.interactive = out, style, interactive
        self.objections = 0
        self._within_line = self._prompting = False

    def prompt(self) -> None:
        """Asks for a line, if there is somebody to ask."""
        if self.interactive and not self._within_line:
            self._write("you    ")
            self._prompting = True

    def took(self, line: str) -> None:
        """The caller's line was read; from a pipe it is not on the screen yet."""
        self._prompting = False
        if not self.interactive:
            self.line(f"you    {line}")

    def line(self, text: str) -> None:
        """A line of its own."""
        prompted = self._prompting
        self._make_room()
        self._write(f"{text}\n")
        if prompted:
            self.prompt()

    def last_line(self, text: str) -> None:
        """The end: nobody is asked for anything any more."""
        self.interactive = False
        self.note(text)

    def note(self, text: str) -> None:
        """Something that nobody said."""
        self.line(self.style.HTTP_NOT_MODIFIED(f"       ({printable(text)})"))

    def objection(self, text: str) -> None:
        """Something that the server did wrong."""
        self.objections += 1
        self.line(self.style.ERROR(f"     ! {printable(text)}"))

    def begin(self, speaker: str) -> None:
        """The start of a line that streams in."""
        self._make_room()
        self._write(f"{speaker:<7}")
        self._within_line = True

    def stream(self, text: str) -> None:
        """More of it."""
        self._write(printable(text))

    def _make_room(self) -> None:
        if self._within_line:
            self._write("\n")
        if self._prompting:
            self._write("\r\033[K")
        self._within_line = self._prompting = False

    def _write(self, text: str) -> None:
        self.out.write(text, ending="")
        self.out.flush()


class ScreenPhone(Phone):
    """A phone whose call can be followed on the screen. `over` is set when nothing more can be said."""

    def __init__(self, screen: Screen, *args: Any, shows_frames: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.screen, self.shows_frames = screen, shows_frames
        self.over = asyncio.Event()
        self._speaking: Reply | None = None

    def on_message(self, direction: str, message: str | bytes) -> None:
        if self.shows_frames:
            shown = message if isinstance(message, str) else f"{len(message)} bytes"
            self.screen.note(f"{'>' if direction == 'in' else '<'} {shown}")

    def on_violation(self, sentence: str) -> None:
        self.screen.objection(sentence)

    def on_heard(self, heard: Heard) -> None:
        match heard.frame:
            case Response() | AgentInterrupt() as frame if heard.reply:
                self._show_speech(frame, heard.reply)
            case Response(response_id=number, content=content) if content:
                self.screen.note(f"dropped, too late for response {number}: {content}")
            case ToolCallInvocation(_, name, arguments):
                self.screen.note(f"tool {name} {arguments}")
            case ToolCallResult(_, content, successful):
                self.screen.note(f"tool {'failed' if successful is False else 'answered'}: {content}")
            case UpdateAgent() | Metadata() as frame:
                self.screen.note(msgspec.json.encode(frame).decode())

    def on_action(self, action: Action) -> None:
        self.screen.note(f"the platform would now {in_words(action)}")
        if not isinstance(action, PressDigits):
            self.over.set()

    def on_closed(self, closed: Closed) -> None:
        if not self._deliberate:
            self.screen.objection(f"the server closed the call with {closed.code} {closed.reason}".rstrip())
            self.over.set()

    def _show_speech(self, frame: Response | AgentInterrupt, reply: Reply) -> None:
        if self._speaking is not reply:
            self._speaking = reply
            self.screen.begin("agent!" if isinstance(frame, AgentInterrupt) else "agent")
        self.screen.stream(frame.content)
        if reply.complete:
            self.screen.note(summary(reply))
            self._speaking = None
            self.screen.prompt()


def printable(text: str) -> str:
    """Without what would steer the terminal: a server may send anything."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def summary(reply: Reply) -> str:
    """How long a reply took."""
    if reply.first_ms is None or reply.done_ms is None:
        return "says nothing"
    protected = ", cannot be interrupted" if reply.protected else ""
    return f"{reply.first_ms / 1000:.3f} s to first words, {reply.done_ms / 1000:.3f} s in all{protected}"


def in_words(action: Action) -> str:
    """What the platform would do."""
    match action:
        case EndCall():
            return "hang up"
        case Transfer(number, True):
            return f"transfer the call to {number}, showing the caller's number"
        case Transfer(number):
            return f"transfer the call to {number}"
        case PressDigits(digits):
            return f"press {digits}"


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


def variable(text: str) -> tuple[str, str]:
    """A dynamic variable, written name=value."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value


def call_details(options: dict[str, Any]) -> dict[str, Any]:
    """What the platform knows of the call, as far as it was given."""
    given = {"agent_id": options["agent_id"], "from_number": options["from_number"]}
    details: dict[str, Any] = {name: value for name, value in given.items() if value}
    if options["variables"]:
        details["retell_llm_dynamic_variables"] = dict(options["variables"])
    return details


class Command(BaseCommand):
    """Needs neither the database nor the project's own configuration to be sound."""

    help = "Calls a server as the platform does. Type what the caller says; /help lists what else can be done."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("url", nargs="?", default=URL, help=f"as configured at the platform; default {URL}")
        parser.add_argument("--key", help="the connection key, if it is not in the URL")
        parser.add_argument("--call-id", help="default: a new one")
        parser.add_argument(
            "--variable",
            dest="variables",
            action="append",
            type=variable,
            metavar="NAME=VALUE",
            help="a dynamic variable of the call; may be given several times",
        )
        parser.add_argument("--from", dest="from_number", metavar="NUMBER", help="the caller's number")
        parser.add_argument("--agent-id", help="the platform's id of the agent that is called")
        parser.add_argument("--script", type=Path, metavar="FILE", help="play a session instead (docs/phone.md)")
        parser.add_argument("--speed", type=float, help="of the script: 1 keeps its times; default: no pauses")
        parser.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for a reply; default 10")
        parser.add_argument("--plain", action="store_true", help="no colours")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exits with 0 when all was well, 1 when the server deviated, 2 when it could not be called."""
        if options["plain"]:
            self.style = no_style()
        code = self._code(options)
        if code:
            sys.exit(code)

    def _code(self, options: dict[str, Any]) -> int:
        try:
            return asyncio.run(self._call(options))
        except KeyboardInterrupt:
            return CONFORMANT
        except DeviationError as error:
            self.stderr.write(str(error))
            return DEVIATED
        except PhoneError as error:
            self.stderr.write(advice(error))
        except (ScriptError, OSError) as error:
            self.stderr.write(f"{options['script']} cannot be played: {error}")
        return NOT_CONNECTED

    async def _call(self, options: dict[str, Any]) -> int:
        url = address(options["url"], *([options["key"]] if options["key"] else []))
        if options["script"]:
            return await self._play(url, options)
        return await self._converse(url, options)

    async def _converse(self, url: str, options: dict[str, Any]) -> int:
        interactive = os.isatty(STDIN)
        screen = Screen(self.stdout, self.style, interactive=interactive)
        phone = ScreenPhone(
            screen,
            url,
            options["call_id"],
            details=call_details(options),
            keepalive=KEEPALIVE_S,
            reconnects=True,
            pace=NOMINAL_PACE if interactive else None,
            updates=True,
            timeout=options["timeout"],
            strict=False,
            shows_frames=options["verbosity"] > 1,
        )
        screen.note(f"calling {phone.url}")
        await Conversing(phone, screen, patient=not interactive).run()
        return DEVIATED if screen.objections else CONFORMANT

    async def _play(self, url: str, options: dict[str, Any]) -> int:
        lines = read_script(options["script"].read_text())
        screen = Screen(self.stdout, self.style, interactive=False)
        phone = Phone(url, options["call_id"] or call_id_of(lines), details=call_details(options))
        player = Player(phone, lines, speed=options["speed"], timeout=options["timeout"])
        await player.play()
        screen.line(f"conformant: {len(lines)} lines, {player.compared} frames of the server as written")
        return CONFORMANT
