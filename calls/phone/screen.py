"""What a person sees of a call in a terminal: lines that stream in, notes, objections, a prompt.
Writes only; what is typed is terminal.py's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from agents.actions import Action, EndCall, PressDigits, Transfer
from calls.phone.conversation import Reply
from calls.phone.errors import Closed
from calls.phone.phone import Phone
from calls.phone.rules import Heard
from calls.protocol import AgentInterrupt, Metadata, Response, ToolCallInvocation, ToolCallResult, UpdateAgent

if TYPE_CHECKING:
    from django.core.management.base import OutputWrapper
    from django.core.management.color import Style


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
