"""Sessions written down as JSON lines (protocol.md 9.2): plays the platform's lines, compares the server's.
Knows the rules of comparing, not those of the call; the phone that dials is in phone.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from calls.phone.errors import HungUpError, PhoneError, RuleError
from calls.phone.phone import Phone
from calls.protocol import (
    Config,
    Outbound,
    Pong,
    Response,
    ToolCallInvocation,
    ToolCallResult,
    decode_outbound,
    encode,
)

IN, OUT, DROP = "in", "out", "drop"


class ScriptError(Exception):
    """The script itself is wrong; the message names the line."""


class ScriptLine(Struct, frozen=True):
    """One line: at `t` seconds the platform sends `frame`, the server is to send it, or the socket dies."""

    number: int
    t: float
    dir: str
    frame: dict[str, Any] = {}
    expected: Outbound | None = None


class DeviationError(Exception):
    """The server did something else than the script; the message is for a person, over several lines."""

    def __init__(
        self,
        why: str,
        line: ScriptLine | None = None,
        expected: Outbound | None = None,
        got: Outbound | None = None,
    ) -> None:
        self.line, self.expected, self.got = line, expected, got
        super().__init__(
            "\n".join([f"{f'line {line.number}' if line else 'at the end'}: {why}", *_diff(expected, got)])
        )


def read_script(text: str) -> list[ScriptLine]:
    """The lines of a script; blank ones are skipped. Raises ScriptError."""
    lines: list[ScriptLine] = []
    for number, row in enumerate(text.splitlines(), 1):
        if row.strip():
            lines.append(_read_line(number, row, lines[-1].t if lines else 0.0))
    if not lines:
        raise ScriptError("the script is empty")
    return lines


def _read_line(number: int, row: str, t: float) -> ScriptLine:
    """`t` is when the line before it is due: the default."""
    try:
        found = msgspec.json.decode(row, type=dict[str, Any])
        line = msgspec.convert({"number": number, "t": t, "dir": "", **found}, ScriptLine)
        if line.dir not in (IN, OUT, DROP):
            raise ScriptError(f'line {number}: "dir" must be "in", "out" or "drop"')
        if line.dir != DROP and not line.frame:
            raise ScriptError(f'line {number}: there is no "frame"')
        expected = decode_outbound(msgspec.json.encode(line.frame)) if line.dir == OUT else None
    except msgspec.DecodeError as error:
        raise ScriptError(f"line {number}: {error}") from None
    return msgspec.structs.replace(line, number=number, expected=expected)


def begins_at_opening(lines: Sequence[ScriptLine]) -> bool:
    """Whether the first line is a server's first frame; else the script begins in the middle of a call."""
    first = lines[0].expected
    return isinstance(first, Config) or (isinstance(first, Response) and first.response_id == 0)


def call_id_of(lines: Sequence[ScriptLine]) -> str | None:
    """The call that the script's own call_details speak of."""
    details = [line.frame["call"] for line in lines if line.frame.get("interaction_type") == "call_details"]
    return next((call["call_id"] for call in details if isinstance(call, dict) and "call_id" in call), None)


class Player:
    """Plays one script over one phone, which must be strict and not have dialled.

    `speed` 1 keeps the times of the script, 2 is twice as fast; None sends each line as soon as what
    precedes it has arrived. `timeout`, in seconds, is how long an expected frame may take once it is due.
    """

    def __init__(
        self, phone: Phone, lines: Sequence[ScriptLine], *, speed: float | None = None, timeout: float = 10.0
    ) -> None:
        self.phone, self.lines, self.speed, self.timeout = phone, lines, speed, timeout
        self.compared = 0
        self._began = 0.0
        self._used = False
        self._early: list[Outbound] = []
        self._tool_calls: dict[str, str] = {}

    async def play(self) -> None:
        """Raises DeviationError at the first deviation, PhoneError when nobody can be dialled."""
        await self.phone.dial()
        try:
            await self._open()
            for line in self.lines:
                await self._play(line)
        finally:
            await self.phone.hang_up()
        self._end()

    async def _open(self) -> None:
        """A script that begins in the middle of a call lets the server greet first."""
        if not begins_at_opening(self.lines):
            try:
                await self.phone.reply(0, self.timeout)
            except PhoneError as error:
                raise DeviationError(f"before it, {error}", self.lines[0]) from None
        self.phone.details = None  # from here on the script has its own
        self._began = self.phone.now()

    async def _play(self, line: ScriptLine) -> None:
        if line.dir != OUT:
            await self._wait_for(line)
        if line.dir == DROP or (isinstance(line.expected, Config) and self._used):
            await self._dial_again(line)
        self._used = line.dir != DROP
        if line.dir == IN:
            await self._send(line)
        if line.expected is not None:
            await self._compare(line, line.expected)

    async def _wait_for(self, line: ScriptLine) -> None:
        await asyncio.sleep(max(0.0, self._due(line) - self.phone.now()))

    def _due(self, line: ScriptLine) -> float:
        """When a line is to be sent, on the phone's clock."""
        if self.speed is None:
            return self.phone.now()
        return self._began + (line.t - self.lines[0].t) / self.speed

    async def _dial_again(self, line: ScriptLine) -> None:
        await self._wait_for(line)
        try:
            await self.phone.reconnect()
        except PhoneError as error:
            raise DeviationError(f"the platform dials again: {error}", line) from None

    async def _send(self, line: ScriptLine) -> None:
        try:
            await self.phone.send(line.frame)
        except HungUpError as error:
            raise DeviationError(str(error), line) from None

    async def _compare(self, line: ScriptLine, expected: Outbound) -> None:
        got = await self._take(line, expected)
        wanted = self._with_own_id(expected, got)
        if got != wanted:
            raise DeviationError("another frame than expected", line, wanted, got)
        self.compared += 1

    async def _take(self, line: ScriptLine, expected: Outbound) -> Outbound:
        """The next frame to compare. Echoes are looked for apart: they overtake speech, and are overtaken."""
        wants_echo = isinstance(expected, Pong)
        for place, frame in enumerate(self._early):
            if isinstance(frame, Pong) is wants_echo and not self._overtaken(frame, expected):
                return self._early.pop(place)
        while True:
            frame = await self._next(line, expected)
            if isinstance(frame, Pong) is wants_echo and not self._overtaken(frame, expected):
                return frame
            self._early.append(frame)

    async def _next(self, line: ScriptLine, expected: Outbound) -> Outbound:
        try:
            return await self.phone.next_frame(max(0.0, self._due(line) - self.phone.now()) + self.timeout)
        except RuleError as error:
            raise DeviationError(f"a rule of the protocol was broken: {error}", line, expected) from None
        except PhoneError as error:
            raise DeviationError(str(error), line, expected) from None

    def _overtaken(self, frame: Outbound, expected: Outbound | None = None) -> bool:
        """Speech for a request that a newer one has replaced since: never heard, so never compared."""
        if not isinstance(frame, Response) or frame == expected:
            return False
        return frame.response_id < self.phone.rules.newest

    def _with_own_id(self, expected: Outbound, got: Outbound) -> Outbound:
        """A server numbers its tool calls as it likes, as long as it means the same call by the same id."""
        tools = (ToolCallInvocation, ToolCallResult)
        if not isinstance(expected, tools) or not isinstance(got, tools):
            return expected
        if got.tool_call_id not in self._tool_calls.values():
            self._tool_calls.setdefault(expected.tool_call_id, got.tool_call_id)
        own = self._tool_calls.get(expected.tool_call_id, expected.tool_call_id)
        return msgspec.structs.replace(expected, tool_call_id=own)

    def _end(self) -> None:
        """After the last line nothing more may have come."""
        if self.phone.violations:
            raise DeviationError(f"a rule of the protocol was broken: {'; '.join(self.phone.violations)}")
        left = [frame for frame in (*self._early, *self.phone.unread) if not self._overtaken(frame)]
        if left:
            raise DeviationError("a frame that the script does not have", got=left[0])


def _diff(expected: Outbound | None, got: Outbound | None) -> list[str]:
    """What was expected, what came, and the fields in which they differ."""
    rows = [f"  expected  {encode(expected)}"] if expected is not None else []
    rows += [f"  got       {encode(got)}"] if got is not None else []
    if expected is None or got is None:
        return rows
    wanted, found = (msgspec.to_builtins(frame) for frame in (expected, got))
    if wanted["response_type"] != found["response_type"]:
        return rows
    names = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    return rows + [f"  {name}: expected {_shown(wanted, name)}, got {_shown(found, name)}" for name in names]


def _shown(frame: dict[str, Any], name: str) -> str:
    return msgspec.json.encode(frame[name]).decode() if name in frame else "nothing"
