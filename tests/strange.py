"""An application that does what its peer tells it to, for tests of the server underneath. By path: /llm-websocket/deny
refuses, …/fail fails before it accepts, …/slow takes its time to clean up, …/stuck never ends unless cancelled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
OK = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]},
    {"type": "http.response.body", "body": b"ok"},
]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        for message in OK:
            await send(message)
        return
    name = scope["path"].rpartition("/")[2]
    await receive()
    await OPENING.get(name, accept)(send)
    try:
        while await serve(await receive(), send):
            pass
        await ENDING.get(name, at_once)()
    finally:
        print(f"{name} is clean", flush=True)  # noqa: T201 - the test reads it


async def serve(message: dict[str, Any], send: Send) -> bool:
    """Obeys one message; False when the application should end."""
    if message["type"] == "websocket.disconnect":
        print(f"disconnected {message['code']}", flush=True)  # noqa: T201 - the test reads it
        return False
    order, _, rest = message["text"].partition(" ")
    if order == "close":
        code, _, reason = rest.partition(" ")
        await send({"type": "websocket.close", "code": int(code), "reason": reason})
        await send({"type": "websocket.send", "text": "too late"})
    elif order == "raise":
        raise RuntimeError("as told")
    elif order != "return":
        await send({"type": "websocket.send", "text": str(len(message["text"]))})
    return order != "return"


async def accept(send: Send) -> None:
    await send({"type": "websocket.accept"})


async def deny(send: Send) -> None:
    await send({"type": "websocket.close"})


async def fail(send: Send) -> None:
    raise RuntimeError("as told")


async def at_once() -> None:
    pass


async def slowly() -> None:
    await asyncio.sleep(0.3)


async def never() -> None:
    await asyncio.Event().wait()


OPENING = {"deny": deny, "fail": fail}
ENDING = {"slow": slowly, "stuck": never}
