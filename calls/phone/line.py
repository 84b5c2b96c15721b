"""The sockets of one call, one after the other: opened, listened to, pinged, lost and opened again.
What is said over them is phone.py's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from calls.phone.errors import Closed, HungUpError, PhoneError, RuleError, SilenceError
from calls.phone.handshake import open_socket
from calls.phone.rules import Heard, Rules
from calls.protocol import Outbound, Pong

KEEPALIVE_LOST_S = 5.0
LOST_RECONNECTS = 2
ABNORMAL_RECONNECTS = 4
ABNORMAL_CLOSE = 1006

Found = TypeVar("Found")


class Line:
    """What a phone (phone.py, where the options are explained) needs of its sockets.

    Whatever is done, or comes, is put before the `rules`; subclasses `respond`.
    """

    def __init__(
        self,
        url: str,
        rules: Rules,
        *,
        headers: Mapping[str, str] | None,
        keepalive: float | None,
        keepalive_lost: float,
        reconnects: bool,
        timeout: float,
        strict: bool,
    ) -> None:
        self.url, self.rules, self.headers = url, rules, dict(headers or {})
        self.keepalive, self.keepalive_lost, self.reconnects = keepalive, keepalive_lost, reconnects
        self.timeout, self.strict = timeout, strict
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
    def violations(self) -> list[str]:
        """Rules of the protocol that the server broke, as sentences."""
        return self.rules.violations

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

    # ------------------------------------------------------------------ the sockets

    async def dial(self) -> None:
        """Opens a socket. Raises RefusedError, UnreachableError or AddressError."""
        self._socket = await open_socket(self.url, self.headers)
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

    # ------------------------------------------------------------------ frames

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

    async def ping(self) -> float:
        """Milliseconds until the echo of a ping."""
        stamp, sent = await self._ping(), self.now()
        echoed = await self._until(lambda: self._echoes[stamp], "the echo of a ping")
        return (echoed - sent) * 1000

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

    # ------------------------------------------------------------------ for subclasses

    def now(self) -> float:
        """Seconds on the clock that every time here is told by."""
        return time.perf_counter()

    def on_message(self, direction: str, message: str | bytes) -> None:
        """For subclasses: a message passed, "in" to the server or "out" of it."""

    def on_heard(self, heard: Heard) -> None:
        """For subclasses: a frame was understood, and is part of a reply unless it was dropped."""

    def on_violation(self, sentence: str) -> None:
        """For subclasses: a rule was broken."""

    def on_closed(self, closed: Closed) -> None:
        """For subclasses: the socket ended, and the phone does not dial again by itself."""

    async def respond(self, heard: Heard) -> None:
        """For subclasses: what the platform does by itself upon a frame."""

    # ------------------------------------------------------------------ listening

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
                await self.respond(heard)
        self._tell()

    def _file(self, heard: Heard, now: float) -> None:
        match heard.frame:
            case Pong(timestamp) if timestamp in self._echoes:
                self._last_echo = self._echoes[timestamp] = now
            case frame if not any(frame is dropped for dropped in self.rules.stale[-1:]):
                self._unread.append(frame)

    # ------------------------------------------------------------------ keeping the connection

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

    async def _ping(self) -> int:
        stamp = max(time.time_ns() // 1_000_000, max(self._echoes, default=0) + 1)
        self._echoes[stamp] = None
        await self.send({"interaction_type": "ping_pong", "timestamp": stamp})
        return stamp

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


def _object(message: str | bytes) -> dict[str, Any] | None:
    """The message as a JSON object, if it is the text of one."""
    if isinstance(message, bytes):
        return None
    try:
        found = msgspec.json.decode(message)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None
