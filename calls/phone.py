"""The platform's side of the LLM WebSocket: dials a server, speaks for a caller, holds it to the rules.
Used by the tests and by `manage.py phone`; no audio, no Django, and no part of the server itself."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import msgspec
from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from agents.actions import Action
from calls.protocol import (
    AgentInterrupt,
    Config,
    ConfigFlags,
    Outbound,
    Pong,
    Response,
    Speech,
    ToolCallInvocation,
    ToolCallResult,
    decode_outbound,
)

HANDSHAKE_S = 7.0
CLOSE_S = 2.0
KEEPALIVE_LOST_S = 5.0
LOST_RECONNECTS = 2
ABNORMAL_RECONNECTS = 4
ABNORMAL_CLOSE = 1006

# Words a second, where speech has to take time.
NOMINAL_PACE = 3.0

SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

Found = TypeVar("Found")


# --------------------------------------------------------------------------- what can go wrong


class PhoneError(Exception):
    """The call did not go as the platform would have it; the message is a sentence for a person.

    PhoneError
        AddressError        no URL of a WebSocket
        UnreachableError    nobody answers there, or not as a WebSocket
        RefusedError        the handshake was answered with an HTTP status
        SilenceError        what was waited for did not come in time
        HungUpError         the socket closed while something was waited for
        RuleError           the server broke a rule of the protocol (strict phones only)
    """


class AddressError(PhoneError):
    """The address is no URL of a WebSocket."""


class UnreachableError(PhoneError):
    """No WebSocket server answers at the address."""


class RefusedError(PhoneError):
    """The server answered the handshake with `status` instead of accepting it."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{url} refused the call with HTTP {status}")
        self.status = status


class SilenceError(PhoneError):
    """The server was silent for longer than the caller was ready to wait."""


class HungUpError(PhoneError):
    """The socket closed; `closed` has the code and the reason."""

    def __init__(self, waiting_for: str, closed: Closed) -> None:
        super().__init__(f"the socket closed with {closed.code} {closed.reason!r} instead of {waiting_for}")
        self.closed = closed


class RuleError(PhoneError):
    """The server sent what the platform would drop, or should never see."""


class Closed(NamedTuple):
    """How a socket ended; 1006 means without a close frame."""

    code: int
    reason: str


# --------------------------------------------------------------------------- what is said


class Reply(Struct, eq=False):
    """What the server said for one request, for one interrupt, or as the begin message (id 0).

    `superseded` replies were overtaken by a newer request, or by an interrupt: nothing more is heard of them.
    """

    id: int
    asked_at: float
    text: str = ""
    frames: list[Speech] = []
    first_at: float | None = None
    done_at: float | None = None
    superseded: bool = False

    @property
    def complete(self) -> bool:
        """The final frame is in."""
        return self.done_at is not None

    @property
    def first_ms(self) -> float | None:
        """Milliseconds from the request to the first words; None when there were none."""
        return None if self.first_at is None else (self.first_at - self.asked_at) * 1000

    @property
    def done_ms(self) -> float | None:
        """Milliseconds from the request to the final frame; None while it is missing."""
        return None if self.done_at is None else (self.done_at - self.asked_at) * 1000

    @property
    def action(self) -> Action | None:
        """What the platform is asked to do once the words are spoken."""
        return self.frames[-1].action if self.frames else None

    @property
    def protected(self) -> bool:
        """The caller cannot interrupt any part of it: the flag counts per frame (protocol.md A20)."""
        return bool(self.frames) and all(frame.no_interruption_allowed for frame in self.frames)

    def take(self, frame: Speech, now: float) -> None:
        """Adds the next frame."""
        self.frames.append(frame)
        self.text += frame.content
        if frame.content and self.first_at is None:
            self.first_at = now
        if frame.content_complete:
            self.done_at = now


class Fragment(NamedTuple):
    """Words on the line from `start` to `end`, in seconds of the phone's clock."""

    text: str
    start: float
    end: float
    protected: bool = False

    def heard(self, now: float) -> str:
        """The words that were audible by `now`."""
        if now >= self.end:
            return self.text
        words = _words(self.text)
        return "".join(words[: int(len(words) * max(0.0, now - self.start) / (self.end - self.start))])

    def until(self, now: float) -> Fragment:
        """What is left of it when the speaker is cut off; protected words are spoken all the same."""
        return self if self.protected or now >= self.end else Fragment(self.heard(now), self.start, now)


class Utterance(Struct, eq=False):
    """What one side said in one go; `source` tells one reply of the agent from the next."""

    role: str
    source: Reply | None
    fragments: list[Fragment]

    def row(self, now: float) -> dict[str, Any]:
        """As the platform sends it; empty when nothing of it was spoken by `now`."""
        content = "".join(fragment.heard(now) for fragment in self.fragments).strip()
        return {"role": self.role, "content": content} if content else {}


class Conversation:
    """The transcript as the platform keeps it: only what was spoken.

    The agent speaks `pace` words a second; without a pace words are spoken the moment they arrive.
    """

    def __init__(self, pace: float | None = None, began: float = 0.0) -> None:
        self.pace = pace
        self.began = began
        self.spoken_at = 0.0
        self.entries: list[Utterance | dict[str, Any]] = []

    def hear_caller(self, text: str, now: float) -> None:
        """The caller's words; a caller whom nobody answered yet goes on with the same utterance."""
        last = self.entries[-1] if self.entries else None
        if isinstance(last, Utterance) and last.role == "user":
            last.fragments.append(Fragment(f" {text}", now, now))
        else:
            self.entries.append(Utterance("user", None, [Fragment(text, now, now)]))

    def hear_agent(self, reply: Reply, text: str, now: float, protected: bool) -> None:
        """The agent's words, spoken after those that still wait to be."""
        start = max(now, self.spoken_at)
        self.spoken_at = start + (len(_words(text)) / self.pace if self.pace else 0.0)
        fragment = Fragment(text, start, self.spoken_at, protected)
        last = self.entries[-1] if self.entries else None
        if isinstance(last, Utterance) and last.source is reply:
            last.fragments.append(fragment)
        else:
            self.entries.append(Utterance("agent", reply, [fragment]))

    def cut(self, now: float, heard: str | None = None) -> None:
        """The agent stops talking: what was not spoken by `now` was never said, or exactly `heard` was."""
        latest = self._agents_latest()
        for utterance in latest:
            utterance.fragments = [fragment.until(now) for fragment in utterance.fragments]
        if heard is not None and latest:
            for utterance in latest:
                utterance.fragments = [] if utterance.source is latest[0].source else utterance.fragments
            latest[0].fragments = [Fragment(heard, now, now)]
        ends = [fragment.end for utterance in latest for fragment in utterance.fragments]
        self.spoken_at = max([now, *ends])

    def _agents_latest(self) -> list[Utterance]:
        """What the agent said since the caller spoke last, the newest first."""
        speech = (entry for entry in reversed(self.entries) if isinstance(entry, Utterance))
        return list(takewhile(lambda utterance: utterance.role == "agent", speech))

    def note(self, event: Mapping[str, Any]) -> None:
        """A tool event or a key press, for the transcript with tool calls."""
        self.entries.append(dict(event))

    def transcript(self, now: float, *, words: bool = False) -> list[dict[str, Any]]:
        """Utterances as the platform sends them, with word timings if wanted."""
        whole: list[Utterance | dict[str, Any]] = []
        for entry in self.entries:
            last = whole[-1] if whole else None
            if not isinstance(entry, Utterance):
                continue
            if isinstance(last, Utterance) and entry.source is not None and last.source is entry.source:
                whole[-1] = Utterance("agent", entry.source, last.fragments + entry.fragments)
            else:
                whole.append(entry)
        return self._rows(whole, now, words)

    def items(self, now: float, *, words: bool = False) -> list[dict[str, Any]]:
        """The same conversation with tool events woven in."""
        return self._rows(self.entries, now, words)

    def _rows(self, entries: list[Utterance | dict[str, Any]], now: float, words: bool) -> list[dict[str, Any]]:
        """What was spoken by `now`, and events. Words that took no time get the time they would have taken."""
        rows: list[dict[str, Any]] = []
        each, audio = 1 / (self.pace or NOMINAL_PACE), 0.0
        for entry in entries:
            row = entry.row(now) if isinstance(entry, Utterance) else entry
            if words and isinstance(entry, Utterance) and row:
                row["words"] = _timed(row["content"], max(audio, entry.fragments[0].start - self.began), each)
                audio = row["words"][-1]["end"]
            rows += [row] if row else []
        return rows


def _words(text: str) -> list[str]:
    """The words of a text, each with the space before it."""
    return re.findall(r"\s*\S+", text)


def _timed(text: str, start: float, each: float) -> list[dict[str, Any]]:
    return [
        {"word": word, "start": round(start + place * each, 2), "end": round(start + (place + 0.9) * each, 2)}
        for place, word in enumerate(text.split())
    ]


# --------------------------------------------------------------------------- the platform's rules


class Heard(NamedTuple):
    """A frame the platform understood, and the reply it became part of, if any."""

    frame: Outbound
    reply: Reply | None = None


class Rules:
    """What the platform makes of a server's frames (protocol.md 3 and 4): values in, no clock, no socket.

    `violations` are sentences; `stale` is what came for an id that is no longer wanted and was dropped.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.config = ConfigFlags()
        self.frames: list[Outbound] = []
        self.stale: list[Speech] = []
        self.violations: list[str] = []
        self.replies: dict[int, Reply] = {}
        self.interrupts: dict[int, Reply] = {}
        self.newest = 0
        self._reached = 0  # the newest request that the server is known to have read
        self._pings: list[tuple[int, int]] = []
        self._tool_calls: set[str] = set()
        self._heard_here = self._asked_here = self._reopening = False

    @property
    def greeted(self) -> bool:
        """The begin message is over, or too late to be wanted."""
        return self.newest > 0 or (0 in self.replies and self.replies[0].complete)

    def opened(self, now: float) -> None:
        """A socket was opened, the first one of the call or another."""
        self._reopening = self.greeted
        self._heard_here = self._asked_here = False
        self._pings.clear()
        self.replies.setdefault(0, Reply(0, now))

    def sent(self, frame: Mapping[str, Any], now: float) -> None:
        """The platform sent this frame; odd ones ask for nothing."""
        kind, number, stamp = (frame.get(key) for key in ("interaction_type", "response_id", "timestamp"))
        if kind == "ping_pong" and type(stamp) is int:
            self._pings.append((stamp, self.newest))
        if kind in ("response_required", "reminder_required") and type(number) is int:
            self._ask(number, now)

    def _ask(self, number: int, now: float) -> None:
        """A lower or equal id is no new request, except as the first one on a socket (A6, A24, A25)."""
        if self._asked_here and number <= self.newest:
            return
        _supersede(self.replies)
        self._reached = min(self._reached, number - 1)
        self._asked_here, self.newest = True, number
        self.replies[number] = Reply(number, now)

    def hear(self, message: str | bytes, now: float) -> Heard | None:
        """A message of the server's; None when the platform would drop it unread."""
        first, self._heard_here = not self._heard_here, True
        frame = self._understand(message)
        if frame is None:
            return None
        self.frames.append(frame)
        match frame:
            case Response():
                return Heard(frame, self._response(frame, now))
            case AgentInterrupt():
                return Heard(frame, self._interrupt(frame, now))
            case Config(flags):
                self._configure(flags, first)
            case Pong(timestamp):
                self._pong(timestamp)
            case ToolCallInvocation() | ToolCallResult():
                self._tool_call(frame)
        return Heard(frame)

    def _violated(self, sentence: str) -> None:
        self.violations.append(sentence)

    def _understand(self, message: str | bytes) -> Outbound | None:
        if isinstance(message, bytes):
            self._violated(f"a binary frame of {len(message)} bytes: the platform closes the call with 1007")
            return None
        try:
            found = self._typed(msgspec.json.decode(message), message)
            frame = decode_outbound(msgspec.json.encode(found))
        except msgspec.DecodeError as error:
            self._violated(f"the platform drops this frame, {error}: {message[:200]}")
            return None
        for name in _unknown_names(found, frame):
            self._violated(f"{name} is not a field of this kind of frame: {message[:200]}")
        return frame

    def _typed(self, found: Any, message: str) -> Any:
        """A frame without response_type counts as a response, which hides mistakes (1.7)."""
        if not isinstance(found, dict) or "response_type" in found:
            return found
        self._violated(f"response_type is missing: {message[:200]}")
        return {"response_type": "response", **found}

    def _configure(self, flags: ConfigFlags, first: bool) -> None:
        if not first:
            self._violated("config is only valid as the first frame on a socket")
        self.config = flags

    def _pong(self, timestamp: int) -> None:
        ping = next((ping for ping in self._pings if ping[0] == timestamp), None)
        if ping is None:
            self._violated(f"a ping_pong with timestamp {timestamp}, which no ping had")
            return
        self._pings.remove(ping)
        self._reached = max(self._reached, ping[1])

    def _tool_call(self, frame: ToolCallInvocation | ToolCallResult) -> None:
        known = frame.tool_call_id in self._tool_calls
        if isinstance(frame, ToolCallInvocation):
            self._tool_calls.add(frame.tool_call_id)
            if known:
                self._violated(f"tool_call_id {frame.tool_call_id!r} was used before")
            if not _is_json_object(frame.arguments):
                self._violated(f"arguments is not the JSON text of an object: {frame.arguments[:200]}")
        elif not known:
            self._violated(f"a result for tool_call_id {frame.tool_call_id!r}, which was never invoked")
        item = msgspec.to_builtins(frame)
        self.conversation.note({"role": item.pop("response_type"), **item})

    def _response(self, frame: Response, now: float) -> Reply | None:
        number = frame.response_id
        if number == 0 and self._reopening:
            self._begin_again(frame)
            return None
        reply = self.replies.get(number)
        if reply is None or reply.complete:
            why = "was never asked for" if reply is None else "goes on after its final frame"
            self._violated(f"response {number} {why}: {frame.content[:80]!r}")
            return None
        if number != self.newest:
            self._drop(frame, number)
            return None
        self._reached = number
        if reply.superseded:
            self._violated(f"response {number} goes on after the agent_interrupt that cancelled it")
            return None
        return self._take(reply, frame, now)

    def _begin_again(self, frame: Response) -> None:
        """A later socket of a call that was greeted opens with an empty begin message, once (A4)."""
        self._reopening = False
        if frame.content or not frame.content_complete:
            self._violated(f"the caller is greeted a second time: {frame.content[:80]!r}")

    def _drop(self, frame: Response, number: int) -> None:
        """Too late: bad luck while the newer request was under way, a fault once the server has read it."""
        self.stale.append(frame)
        if number < self._reached:
            self._violated(f"response {number} goes on although the server had read request {self._reached}")

    def _interrupt(self, frame: AgentInterrupt, now: float) -> Reply | None:
        number = frame.interrupt_id
        if number not in self.interrupts:
            self._begin_interrupt(number, now)
        reply = self.interrupts[number]
        if not reply.complete and not reply.superseded:
            return self._take(reply, frame, now)
        why = "its final frame" if reply.complete else "a newer one"
        self._violated(f"interrupt {number} goes on after {why}: {frame.content[:80]!r}")
        return None

    def _begin_interrupt(self, number: int, now: float) -> None:
        if number < max(self.interrupts, default=1):
            self._violated(f"interrupt_id {number} is lower than one before")
        self._silence_agent(now)
        self.interrupts[number] = Reply(number, now)

    def _silence_agent(self, now: float) -> None:
        """An interrupt stops what the agent says and cancels what it was about to say."""
        _supersede(self.replies)
        _supersede(self.interrupts)
        self.conversation.cut(now)

    def _take(self, reply: Reply, frame: Speech, now: float) -> Reply:
        if not frame.content and not frame.content_complete:
            self._violated(f"an empty frame that does not complete response {reply.id}")
        reply.take(frame, now)
        if frame.content:
            self.conversation.hear_agent(reply, frame.content, now, frame.no_interruption_allowed)
        return reply


def _supersede(replies: Mapping[int, Reply]) -> None:
    for reply in replies.values():
        reply.superseded = reply.superseded or not reply.complete


def _unknown_names(found: Any, frame: Outbound) -> list[str]:
    known = {"response_type", *frame.__struct_fields__}
    return [name for name in found if name not in known]


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


# --------------------------------------------------------------------------- the socket


class Phone:
    """One call, seen from the platform.

    `url` is what an operator configures; the call id becomes its last path segment, unless `url_has_call_id`.
    `details` are laid over the call object that a server gets when its config asks for it; None sends none.
    `keepalive` is the seconds between pings once the config asks for them; None never pings by itself.
    `reconnects`: dial again when the keepalive or the connection is lost, as often as the platform does.
    `pace` is how fast the agent speaks, in words a second; None speaks at once.
    `words`: transcripts carry word timings. `updates`: announce turns by update_only, as the platform does.
    `timeout`, in seconds, bounds every wait that is not given its own limit.
    `strict`: once a rule was broken, a wait that is not over already ends with RuleError.
    """

    def __init__(
        self,
        url: str,
        call_id: str | None = None,
        *,
        details: Mapping[str, Any] | None = {},
        keepalive: float | None = None,
        keepalive_lost: float = KEEPALIVE_LOST_S,
        reconnects: bool = False,
        headers: Mapping[str, str] | None = None,
        pace: float | None = None,
        words: bool = False,
        updates: bool = False,
        timeout: float = 5.0,
        strict: bool = True,
        url_has_call_id: bool = False,
    ) -> None:
        self.call_id = call_id or f"call_{uuid4().hex}"
        self.url = url if url_has_call_id else address(url, self.call_id)
        self.details = None if details is None else {**_call_object(self.call_id), **details}
        self.keepalive, self.keepalive_lost, self.reconnects = keepalive, keepalive_lost, reconnects
        self.headers = dict(headers or {})
        self.words, self.updates, self.timeout, self.strict = words, updates, timeout, strict
        self.conversation = Conversation(pace, self.now())
        self.rules = Rules(self.conversation)
        self.action: Action | None = None
        self.redials = 0
        self._unread: list[Outbound] = []
        self._echoes: dict[int, float | None] = {}
        self._last_echo = 0.0
        self._news = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._listening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deliberate = False
        self._redialling = False

    # ------------------------------------------------------------------ what was observed

    @property
    def frames(self) -> list[Outbound]:
        """Everything the server sent in this call that could be read, stale frames included."""
        return self.rules.frames

    @property
    def stale(self) -> list[Speech]:
        """What the platform dropped because a newer request had been made."""
        return self.rules.stale

    @property
    def violations(self) -> list[str]:
        """Rules of the protocol that the server broke, as sentences."""
        return self.rules.violations

    @property
    def replies(self) -> dict[int, Reply]:
        """By response id; 0 is the begin message."""
        return self.rules.replies

    @property
    def transcript(self) -> list[dict[str, Any]]:
        """The conversation so far, as the next frame will carry it."""
        return self.conversation.transcript(self.now(), words=self.words)

    @property
    def unread(self) -> list[Outbound]:
        """What came and nobody has waited for, in order; neither stale frames nor the echoes of `ping`."""
        return self._unread

    @property
    def is_open(self) -> bool:
        """Whether there is a socket and it has not ended."""
        return self._listening is not None and not self._listening.done()

    @property
    def is_connected(self) -> bool:
        """The same, or the phone is dialling again by itself."""
        return self.is_open or self._redialling

    @property
    def closed(self) -> Awaitable[Closed]:
        """To be awaited: how the socket ended. Raises SilenceError when it stays open."""
        return self._until(lambda: None if self.is_connected else self._ending(), "the end of the call")

    # ------------------------------------------------------------------ the line

    async def dial(self) -> None:
        """Opens a socket. Raises RefusedError, UnreachableError or AddressError."""
        self._socket = await _connect(self.url, self.headers)
        self._deliberate = False
        self._last_echo = self.now()
        self.rules.opened(self.now())
        self._listening = asyncio.create_task(self._listen(self._socket))

    async def hang_up(self, code: int = 1000, reason: str = "") -> None:
        """Closes the socket, if it is open, and waits until everything the server had sent is in."""
        self._deliberate = True
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        if self._socket is None or self._listening is None:
            return
        await self._socket.close(code, reason)
        await asyncio.wait([self._listening])

    async def drop(self) -> None:
        """The connection dies without a close frame, which both sides see as 1006."""
        self._deliberate = True
        if self._socket is None or self._listening is None:
            return
        self._socket.transport.abort()
        await asyncio.wait([self._listening])

    async def reconnect(self) -> None:
        """Dials again for the same call, after whatever happened to the last socket."""
        if self.is_open:
            await self.drop()
        await self.dial()

    # ------------------------------------------------------------------ the caller

    async def greeting(self) -> str:
        """The begin message, once it is complete; empty when the caller is to speak first."""
        return (await self.reply(0)).text

    async def say(self, text: str) -> Reply:
        """The caller says something and is answered."""
        return await self.reply(await self.ask(text))

    async def ask(self, text: str = "", *, response_id: int | None = None) -> int:
        """The caller says something, which cuts the agent short; the id under which the answer is wanted."""
        self.conversation.cut(self.now())
        if text:
            self.conversation.hear_caller(text, self.now())
        if self.updates:
            await self.update(turntaking="user_turn")
        return await self._request("response_required", response_id)

    async def silence(self) -> Reply:
        """The caller has been quiet for too long; the server reminds."""
        return await self.reply(await self.remind())

    async def remind(self) -> int:
        """The same without waiting: the id under which the reminder is wanted."""
        return await self._request("reminder_required")

    async def interrupt(self, text: str, *, heard: str | None = None) -> Reply:
        """Barge-in: the agent is cut off after `heard`, or where it was, and the caller is answered."""
        return await self.reply(await self.barge_in(text, heard=heard))

    async def barge_in(self, text: str, *, heard: str | None = None) -> int:
        """The same without waiting: the id under which the answer is wanted."""
        self.conversation.cut(self.now(), heard)
        self.conversation.hear_caller(text, self.now())
        await self.update(turntaking="user_turn")
        return await self._request("response_required")

    async def press(self, digits: str) -> Reply:
        """The caller presses keys, which count as words (protocol.md 4.4), and is answered."""
        return await self.reply(await self.send_digits(digits))

    async def send_digits(self, digits: str) -> int:
        """The same without waiting: the id under which the answer is wanted."""
        for digit in digits:
            self.conversation.note({"role": "dtmf", "digit": digit})
        return await self.ask(" ".join(f"Pressed Button: {digit}" for digit in digits))

    async def update(self, text: str = "", *, turntaking: str | None = None) -> None:
        """An update_only, with more of the caller's words if any; no answer is due."""
        if text:
            self.conversation.hear_caller(text, self.now())
        frame = {"interaction_type": "update_only", **self._transcripts()}
        await self.send({**frame, "turntaking": turntaking} if turntaking else frame)

    async def send_details(self) -> None:
        """The call object; sent by itself when the server's config asks for it and there are `details`."""
        await self.send({"interaction_type": "call_details", "call": self.details or {}})

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Any frame, as it is; requests and pings among them count."""
        await self.send_raw(msgspec.json.encode(frame).decode())

    async def send_raw(self, message: str | bytes) -> None:
        """Any message: text that need not be JSON, or bytes for a binary frame."""
        if self._socket is None:
            raise PhoneError("nobody has dialled yet")
        frame = _object(message)
        if frame is not None:
            self.rules.sent(frame, self.now())
        self.on_message("in", message)
        try:
            await self._socket.send(message)
        except ConnectionClosed:
            if self._listening and self._listening is not asyncio.current_task():
                await asyncio.wait([self._listening])
            raise HungUpError("taking a frame", self._ending()) from None

    # ------------------------------------------------------------------ waiting

    async def reply(self, response_id: int, within: float | None = None) -> Reply:
        """The answer to a request, once it is complete or superseded."""
        return await self._finished(self.rules.replies, response_id, f"the end of response {response_id}", within)

    async def agent_interrupt(self, interrupt_id: int = 1) -> Reply:
        """Speech the server begins by itself, once it is complete."""
        what = f"the end of interrupt {interrupt_id}"
        return await self._finished(self.rules.interrupts, interrupt_id, what)

    async def acted(self) -> Action:
        """What the platform does after the words are spoken: hang up, transfer or press digits."""
        return await self._until(lambda: self.action, "an action")

    async def next_frame(self, within: float | None = None) -> Outbound:
        """The next of `unread`, as soon as there is one."""
        await self._until(lambda: self._unread or None, "another frame", within)
        return self._unread.pop(0)

    async def ping(self) -> float:
        """Milliseconds until the echo of a ping."""
        stamp, sent = await self._ping(), self.now()
        echoed = await self._until(lambda: self._echoes[stamp], "the echo of a ping")
        return (echoed - sent) * 1000

    async def quiet(self) -> None:
        """Raises RuleError if the server sent anything that nobody waited for.

        Frames arrive in order: what the server sent by the time it read this ping is here before the echo.
        """
        await self.ping()
        if self._unread:
            raise RuleError(f"the server should have been quiet but sent {self._unread}")

    async def _finished(self, replies: dict[int, Reply], number: int, what: str, within: float | None = None) -> Reply:
        def finished() -> Reply | None:
            reply = replies.get(number)
            return reply if reply and (reply.complete or reply.superseded) else None

        reply = await self._until(finished, what, within)
        seen = [place for place, frame in enumerate(self._unread) if any(frame is own for own in reply.frames)]
        del self._unread[: max(seen, default=-1) + 1]
        return reply

    async def _until(self, find: Callable[[], Found | None], what: str, within: float | None = None) -> Found:
        """What `find` finds, as soon as it does."""
        limit = self.timeout if within is None else within
        deadline = self.now() + limit
        while True:
            if (found := find()) is not None:
                return found
            if self.strict and self.violations:
                raise RuleError("; ".join(self.violations))
            if not self.is_connected:
                raise HungUpError(what, self._ending())
            try:
                await asyncio.wait_for(self._news.wait(), deadline - self.now())
            except TimeoutError:
                raise SilenceError(f"waited {limit:g} s in vain for {what}") from None

    # ------------------------------------------------------------------ the platform's own doing

    def now(self) -> float:
        """Seconds on the clock that every time here is told by."""
        return time.perf_counter()

    def on_message(self, direction: str, message: str | bytes) -> None:
        """For subclasses: a message passed, "in" to the server or "out" of it."""

    def on_heard(self, heard: Heard) -> None:
        """For subclasses: a frame was understood, and is part of a reply unless it was dropped."""

    def on_violation(self, sentence: str) -> None:
        """For subclasses: a rule was broken."""

    def on_action(self, action: Action) -> None:
        """For subclasses: the words are spoken, the action is due."""

    def on_closed(self, closed: Closed) -> None:
        """For subclasses: the socket ended, and the phone does not dial again by itself."""

    async def _listen(self, socket: ClientConnection) -> None:
        """Takes in what one socket brings until it ends."""
        try:
            async for message in socket:
                await self._hear(message)
        except ConnectionClosed:
            pass
        finally:
            if self._ending().code == ABNORMAL_CLOSE and not self._deliberate:
                self._redial(ABNORMAL_RECONNECTS)
            if not self._redialling:
                self.on_closed(self._ending())
            self._tell()

    async def _hear(self, message: str | bytes) -> None:
        now = self.now()
        self.on_message("out", message)
        known = len(self.violations)
        heard = self.rules.hear(message, now)
        for sentence in self.violations[known:]:
            self.on_violation(sentence)
        if heard is not None:
            self._file(heard, now)
            self.on_heard(heard)
            with suppress(HungUpError):
                await self._respond(heard)
        self._tell()

    def _file(self, heard: Heard, now: float) -> None:
        match heard.frame:
            case Pong(timestamp) if timestamp in self._echoes:
                self._last_echo = self._echoes[timestamp] = now
            case frame if not any(frame is dropped for dropped in self.stale[-1:]):
                self._unread.append(frame)

    async def _respond(self, heard: Heard) -> None:
        """What the platform does by itself upon a frame."""
        reply = heard.reply
        if isinstance(heard.frame, Config):
            await self._follow(heard.frame.config)
        if reply and self.updates and len(reply.frames) == 1 and reply.text:
            await self.update(turntaking="agent_turn")
        if reply and reply.complete:
            left = self.conversation.spoken_at - self.now()
            if left > 0:
                self._start(self._spoken(reply, left))
            else:
                await self._spoken(reply)

    async def _follow(self, config: ConfigFlags) -> None:
        if config.call_details and self.details is not None:
            await self.send_details()
        if config.auto_reconnect and self.keepalive is not None and self._socket:
            self._start(self._keep_alive(self._socket, self.keepalive))

    async def _spoken(self, reply: Reply, left: float = 0.0) -> None:
        """After the last word: the action, unless the caller spoke first (protocol.md 4.6)."""
        if left > 0:
            await asyncio.sleep(left)
        newest = self.rules.interrupts if reply in self.rules.interrupts.values() else self.rules.replies
        if reply.action and reply is newest[max(newest)]:
            self.action = reply.action
            self.on_action(reply.action)
            self._tell()
        if self.updates and reply.text:
            await self.update()

    async def _keep_alive(self, socket: ClientConnection, interval: float) -> None:
        """Pings while this socket is the call's; a lost keepalive ends the socket (protocol.md 1.5)."""
        while socket is self._socket and self.is_open:
            if self.now() - self._last_echo > self.keepalive_lost:
                self._note(f"no ping_pong for {self.keepalive_lost:g} s: the keepalive is lost")
                self._deliberate = True
                self._redial(LOST_RECONNECTS)
                socket.transport.abort()
                return
            await self._ping()
            await asyncio.sleep(interval)

    def _redial(self, limit: int) -> None:
        if self.reconnects and self.redials < limit:
            self.redials += 1
            self._redialling = True
            self._start(self._dial_again())

    async def _dial_again(self) -> None:
        try:
            await self.reconnect()
        except PhoneError as error:
            self._note(f"the platform cannot reconnect: {error}")
            self.on_closed(self._ending())
        finally:
            self._redialling = False
            self._tell()

    def _note(self, sentence: str) -> None:
        self.violations.append(sentence)
        self.on_violation(sentence)

    async def _ping(self) -> int:
        stamp = max(time.time_ns() // 1_000_000, max(self._echoes, default=0) + 1)
        self._echoes[stamp] = None
        await self.send({"interaction_type": "ping_pong", "timestamp": stamp})
        return stamp

    async def _request(self, kind: str, response_id: int | None = None) -> int:
        number = self.rules.newest + 1 if response_id is None else response_id
        await self.send({"interaction_type": kind, "response_id": number, **self._transcripts()})
        return number

    def _transcripts(self) -> dict[str, Any]:
        found = {"transcript": self.transcript}
        if self.rules.config.transcript_with_tool_calls:
            found["transcript_with_tool_calls"] = self.conversation.items(self.now(), words=self.words)
        return found

    def _ending(self) -> Closed:
        socket = self._socket
        if socket is None or socket.close_code is None:
            return Closed(ABNORMAL_CLOSE, "")
        return Closed(socket.close_code, socket.close_reason or "")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_while_connected(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self) -> None:
        """Wakes everybody who waits for something to happen."""
        self._news.set()
        self._news = asyncio.Event()


async def _while_connected(work: Coroutine[Any, Any, None]) -> None:
    """Work in the background that has nothing left to do once the socket is closed."""
    with suppress(HungUpError):
        await work


def address(url: str, *segments: str) -> str:
    """The URL with more path segments, before any query; http forms become ws forms. Raises AddressError."""
    try:
        parts = urlsplit(url)
        dialled = bool(parts.hostname) and parts.scheme in SCHEMES and parts.port != 0
    except ValueError:
        dialled = False
    if not dialled:
        raise AddressError(f"{url!r} is no WebSocket URL; one looks like ws://127.0.0.1:8000/llm-websocket")
    path = "/".join([parts.path.rstrip("/"), *(quote(segment, safe="") for segment in segments)])
    return urlunsplit(parts._replace(scheme=SCHEMES[parts.scheme], path=path))


async def _connect(url: str, headers: Mapping[str, str]) -> ClientConnection:
    """A socket with neither Origin nor subprotocol, as the platform opens it."""
    here = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    try:
        return await connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=None,
            ping_interval=None,
            open_timeout=HANDSHAKE_S,
            close_timeout=CLOSE_S,
            proxy=None if here else True,
            user_agent_header=None,
        )
    except InvalidStatus as error:
        raise RefusedError(url, error.response.status_code) from None
    except InvalidURI:
        raise AddressError(f"{url!r} is no WebSocket URL") from None
    except (OSError, TimeoutError, InvalidHandshake, EOFError) as error:
        raise UnreachableError(f"no WebSocket server answers at {url}: {error or type(error).__name__}") from None


def _call_object(call_id: str) -> dict[str, Any]:
    """The call object of an ordinary inbound phone call (protocol.md 5)."""
    return {
        "call_id": call_id,
        "call_type": "phone_call",
        "call_status": "ongoing",
        "agent_id": "agent_phone",
        "agent_version": 1,
        "direction": "inbound",
        "from_number": "+15035550142",
        "to_number": "+15035550100",
    }


def _object(message: str | bytes) -> dict[str, Any] | None:
    """The message as a JSON object, if it is the text of one."""
    if isinstance(message, bytes):
        return None
    try:
        found = msgspec.json.decode(message)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None
