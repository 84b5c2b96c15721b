"""A tiny server that does exactly what a test tells it, right or wrong, for tests of the pretend platform."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

SESSIONS = Path(__file__).parent / "sessions"


class Line:
    """The server's end of one socket, driven by hand."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.path = socket.request.path if socket.request else ""

    async def send(self, kind: str = "response", **fields: Any) -> None:
        await self.socket.send(json.dumps({"response_type": kind, **fields}))

    async def say(self, number: int, text: str, done: bool = True, **fields: Any) -> None:
        await self.send(response_id=number, content=text, content_complete=done, **fields)

    async def next(self, kind: str = "") -> dict[str, Any]:
        """The next frame, or the next one of a kind; pings on the way are echoed."""
        while True:
            frame = json.loads(await self.socket.recv())
            if frame["interaction_type"] == kind or not kind:
                return frame
            if frame["interaction_type"] == "ping_pong":
                await self.echo(frame)

    async def echo(self, frame: dict[str, Any]) -> None:
        await self.send("ping_pong", timestamp=frame["timestamp"])

    async def echo_all(self) -> None:
        """Answers pings until the phone hangs up."""
        async for message in self.socket:
            frame = json.loads(message)
            if frame["interaction_type"] == "ping_pong":
                await self.echo(frame)


Talk = Callable[[Line], Awaitable[None]]


@asynccontextmanager
async def serving(*talks: Talk) -> AsyncIterator[str]:
    """A server whose sockets are handled by these, one after the other; the last one also by itself later."""
    left = list(talks)

    async def handle(socket: ServerConnection) -> None:
        talk = left.pop(0) if len(left) > 1 else left[0]
        line = Line(socket)
        await talk(line)
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/llm-websocket"


async def answers(line: Line) -> None:
    """A server that greets and answers like a good one."""
    await line.say(0, "Hello.")
    async for message in line.socket:
        frame = json.loads(message)
        match frame["interaction_type"]:
            case "ping_pong":
                await line.echo(frame)
            case "response_required":
                await line.say(frame["response_id"], "You said ", done=False)
                await line.say(frame["response_id"], frame["transcript"][-1]["content"])
            case "reminder_required":
                await line.say(frame["response_id"], "Still there?")


async def answers_only(line: Line) -> None:
    async for message in line.socket:
        frame = json.loads(message)
        if frame["interaction_type"] == "response_required":
            await line.say(frame["response_id"], "Here I am.")


def replaying(text: str) -> Talk:
    """A server that does what a script says of it, over as many sockets as it takes."""
    rows = [json.loads(row) for row in text.splitlines()]
    in_the_middle = rows[0]["dir"] == "in"
    begun = False

    async def replay(line: Line) -> None:
        nonlocal begun
        if in_the_middle and not begun:
            await line.send("config", config={"auto_reconnect": True})
            await line.say(0, "Hello.")
        fresh, begun = not (in_the_middle and not begun), True
        while rows:
            row = rows[0]
            if row["dir"] == "out" and row["frame"]["response_type"] == "config" and not fresh:
                return
            fresh = False
            rows.pop(0)
            if row["dir"] == "out":
                await line.socket.send(json.dumps(row["frame"]))
            else:
                assert json.loads(await line.socket.recv()) == row["frame"]

    return replay
