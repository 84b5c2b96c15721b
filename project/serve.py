"""Daphne as Switchboard runs it: `python -m project.serve`, with the command line of `daphne`.

Close codes and reasons reach the peer, the frames of long calls fit, no key gets into a log, and SIGTERM lets
calls end, drops the rest so that the platform dials again, and leaves nothing unsaved.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from autobahn.websocket.types import ConnectionDeny
from daphne.cli import CommandLineInterface
from daphne.server import Server, twisted_loop
from daphne.ws_protocol import WebSocketProtocol
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from twisted.internet import defer
from twisted.internet import reactor as installed_reactor
from twisted.web.http import HTTPChannel

logger = logging.getLogger("project.serve")
reactor: Any = installed_reactor  # Twisted installs it at run time, so a type checker sees an empty module

Application = asyncio.Task[Any]
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
CALLS = "/llm-websocket/"
KEY = re.compile(r"\bk[0-9a-f]{8}-[\w-]+")

FLUSH_TCP_S = 1.0  # for words already said to leave before a socket is cut
CLEAN_UP_S = 8.0  # for applications whose socket is gone
CANCEL_S = 2.0  # for those that had to be told
RECORD_S = 10.0  # for what is not in the database yet


class CallProtocol(WebSocketProtocol):  # type: ignore[misc]  # daphne has no annotations
    """A socket that closes with the code and reason it was told, and at once when its application fails."""

    path = b""

    @property
    def is_call(self) -> bool:
        return self.path.startswith(CALLS.encode())

    def handle_reply(self, message: dict[str, Any]) -> None:
        """A message of the application. A closing socket takes none, just as a closed one."""
        if self.state in (self.STATE_CLOSING, self.STATE_CLOSED):
            return
        if message.get("type") == "websocket.close" and self.state == self.STATE_OPEN:
            self.close_with(message.get("code") or 1000, message.get("reason") or "")
            return
        super().handle_reply(message)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803 - autobahn's name
        """Text is checked by decoding it: autobahn's own check of every byte beforehand is switched off, since it
        costs a third of what a long frame costs in all."""
        try:
            super().onMessage(payload, isBinary)
        except UnicodeDecodeError:
            self.close_with(1007, "Text that is not UTF-8.")

    def close_with(self, code: int, reason: str) -> None:
        """Any code that may be on the wire: autobahn's own sendClose allows 1000 and 3000 to 4999 only."""
        if not may_be_sent(code):
            raise ValueError(f"{code} is no close code for the wire.")
        self.sendCloseFrame(code=code, reasonUtf8=clip(reason))

    def handle_exception(self, exception: BaseException | None) -> None:
        """Tells the peer, once, that its application is gone: HTTP 500 while it knocks, afterwards 1011."""
        knocking = self.__dict__.pop("handshake_deferred", None)
        if knocking is not None:
            knocking.errback(ConnectionDeny(500, "Internal server error"))  # type: ignore[no-untyped-call]  # autobahn
        elif self.state == self.STATE_OPEN:
            self.close_with(1011, "Server error")


class CallServer(Server):  # type: ignore[misc]  # daphne has no annotations
    """Daphne's server with sockets of ours and an orderly end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # by the time `ready_callable` is called the factories exist, and nobody has connected yet
        super().__init__(*args, **kwargs, signal_handlers=False, ready_callable=self.prepare)
        self.ports: list[Any] = []
        self.ending: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        self.ws_factory.protocol = CallProtocol
        self.ws_factory.setProtocolOptions(utf8validateIncoming=False)
        reactor.callWhenRunning(self.begin_work)

    def begin_work(self) -> None:
        self.beginning = twisted_loop.create_task(begin_work())  # Twisted calls this just before the loop runs

    def run(self) -> None:
        # before it listens: who sees it listen may stop it
        for number in STOP_SIGNALS:
            twisted_loop.add_signal_handler(number, self.begin_ending)
        super().run()

    def listen_success(self, port: Any) -> None:
        super().listen_success(port)
        self.ports.append(port)
        logger.info("Listening on %s", address_text(port.getHost()))

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        super().log_action(protocol, action, {**details, "path": without_secrets(details["path"])})

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Daphne looks only once a second whether an application has failed, and the caller waits."""
        queue = super().create_application(protocol, scope)
        if queue is not None and isinstance(protocol, CallProtocol):
            application: Application = self.connections[protocol]["application_instance"]
            # the exception itself stays in the task: Daphne logs it
            application.add_done_callback(lambda task: protocol.handle_exception(None))
        return queue

    # ------------------------------------------------------------ the end

    def begin_ending(self) -> None:
        """The first signal; one that comes more than a second later kills the process."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        # one Ctrl-C comes twice when a parent passes on what the terminal has already sent to all
        loop.call_later(1, obey_signals)
        self.ending = loop.create_task(self.end())

    async def end(self) -> None:
        """Each step happens whatever became of the one before."""
        for step in (self.drain, self.drop_all, self.end_applications, flush_record):
            try:
                await step()
            except Exception:
                logger.exception("Could not stop in order: %s", step.__name__)
        reactor.stop()

    async def drain(self) -> None:
        """Nobody new comes in, and calls have `DRAIN_S` to end by themselves."""
        await asyncio.gather(*(as_future(port.stopListening) for port in self.ports))
        close_idle_http()
        await self.drop(socket for socket in self.sockets() if not socket.is_call)
        calls = self.applications(lambda protocol: getattr(protocol, "is_call", False))
        logger.info("Stopping; calls still live: %d", len(calls))
        await settle(calls, settings.DRAIN_S)

    async def drop(self, sockets: Iterable[CallProtocol]) -> None:
        """Ends TCP without a close frame: the platform dials again after 1006, but not after 1001 or 1012."""
        dropped = set(sockets)
        for socket in dropped:
            # not aborted yet, or the last words sent would be lost with the connection
            socket.dropConnection(abort=False)
        await settle(self.applications(dropped.__contains__), FLUSH_TCP_S)
        for socket in dropped:
            socket.transport.abortConnection()

    async def drop_all(self) -> None:
        await self.drop(self.sockets())

    async def end_applications(self) -> None:
        """They know that their sockets are gone, and clean up; then they are told."""
        await settle(self.applications(), CLEAN_UP_S)
        await self.cancel_applications()

    async def cancel_applications(self) -> None:
        cancelled = self.applications()
        for application in cancelled:
            application.cancel()
        for survivor in await settle(cancelled, CANCEL_S):
            logger.error("Gave up on %r", survivor)

    def kill_all_applications(self) -> Any:
        """What the reactor waits for. Daphne's own version raises when a connection has no application yet, and
        waits only for the first one to end."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self.cancel_applications()))

    def sockets(self) -> list[CallProtocol]:
        """WebSockets whose TCP connection is up."""
        return [
            protocol
            for protocol, details in self.connections.items()
            if isinstance(protocol, CallProtocol) and "disconnected" not in details
        ]

    def applications(self, wanted: Callable[[Any], bool] = lambda protocol: True) -> set[Application]:
        """Running applications, of the connections that are `wanted`."""
        found = (details.get("application_instance") for key, details in self.connections.items() if wanted(key))
        return {application for application in found if application and not application.done()}


class ServeCommand(CommandLineInterface):  # type: ignore[misc]  # daphne has no annotations
    """Daphne's options with defaults for this project."""

    server_class = CallServer

    def __init__(self) -> None:
        super().__init__()
        # twice our cap: a frame between the two reaches the call, which closes it with the code the platform
        # expects; above, the connection is dropped unread
        size = 2 * settings.LLM_MAX_FRAME_BYTES
        self.parser.prog = "python -m project.serve"
        self.parser.set_defaults(
            application="project.asgi:application",
            # paths hold connection keys, and query strings whatever people search for
            access_log=os.devnull,
            server_name="",
            websocket_max_message_size=size,
            websocket_max_frame_size=size,
        )
        for action in self.parser._actions:
            if action.dest == "application":
                action.nargs, action.required = "?", False

    def run(self, args: list[str]) -> None:
        options = self.parser.parse_args(args)
        if not is_bound(options):
            args = [*args, "--bind", settings.HOST, "--port", str(settings.PORT)]
        super().run(args)


def is_bound(options: Any) -> bool:
    """Whether the command line says where to listen."""
    places = (options.host, options.unix_socket, options.socket_strings)
    return any(places) or options.port is not None or options.file_descriptor is not None


async def settle(tasks: set[Application], within: float) -> set[Application]:
    """Waits for all, and returns those that did not end in time. Never raises what they raise."""
    if not tasks:
        return set()
    _, pending = await asyncio.wait(tasks, timeout=within)
    return pending


async def begin_work() -> None:
    """What need not wait for the first call: knowing the agents, and closing what a killed process left open."""
    recorder, desk = sys.modules.get("calls.recorder"), sys.modules.get("calls.desk")
    if recorder is None or desk is None:
        return  # another application than ours is served
    keep_pauses_short()
    recorder.current().start()
    await desk.current().learn()


def keep_pauses_short() -> None:
    """With a thousand calls a full garbage collection stops every one of them for 0.1 to 0.3 s, and a thread that is
    writing the record may keep the interpreter for 5 ms at a time: what was loaded at the start is never collected,
    full collections are rare, and threads take shorter turns."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 1_000)
    sys.setswitchinterval(0.001)


async def flush_record() -> None:
    """What calls have noted is in the database afterwards."""
    recorder = sys.modules.get("calls.recorder")
    if recorder is not None:  # else no call has come in this process
        await asyncio.wait_for(recorder.close(), RECORD_S)


def as_future(function: Callable[[], Any]) -> asyncio.Future[Any]:
    """The outcome of something of Twisted's, to be awaited."""
    return defer.maybeDeferred(function).asFuture(asyncio.get_running_loop())


def obey_signals() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def close_idle_http() -> None:
    """A kept-alive connection, for example a proxy's, would bring new calls to a port that no longer listens."""
    for reader in reactor.getReaders():
        channel = getattr(getattr(reader, "protocol", None), "_channel", None)
        if isinstance(channel, HTTPChannel) and not channel.requests:
            channel.loseConnection()  # type: ignore[no-untyped-call]  # twisted


def may_be_sent(code: int) -> bool:
    """1004 to 1006 and 1015 only ever describe what happened; 1016 to 2999 are not given out."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def clip(reason: str) -> bytes:
    """What fits a close frame beside the code, cut between two characters."""
    return reason.encode()[:123].decode(errors="ignore").encode()


def without_secrets(path: str) -> str:
    """A path as it may be logged: without query, and of a call's URL nothing but the call id."""
    path = KEY.sub("***", path.partition("?")[0])
    if not path.startswith(CALLS):
        return path
    *keys, call_id = path.removeprefix(CALLS).rstrip("/").split("/")
    return CALLS + "***/" * len(keys) + call_id


def address_text(address: Any) -> str:
    """Where a port listens, for people and scripts."""
    if not hasattr(address, "port"):
        return f"unix:{os.fsdecode(address.name)}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        command = ServeCommand()
    except ImproperlyConfigured as error:
        sys.exit(f"project.serve: {error}")
    command.run(sys.argv[1:])


if __name__ == "__main__":
    main()
