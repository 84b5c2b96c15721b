"""The platform's side of the measurement: many sockets that send prepared frames and time the answers."""

from __future__ import annotations

import asyncio
import time
from itertools import count

import websockets
from msgspec import Struct

from bench.conversation import frames

PING = '"ping_pong"'
NEW_CALLS_A_SECOND = 100


class Pace(Struct):
    """What one run found. Latencies are ms."""

    frames: int = 0
    replies: list[float] = []
    pings: list[float] = []


async def flat_out(url: str, calls: int, script: list[str], rounds: int) -> int:
    """As fast as the server answers: every ping of the script is waited for. Returns the frames sent."""
    numbers = count(1)

    async def call() -> None:
        async with websockets.connect(f"{url}/bench-{next(numbers)}-{time.time_ns()}", compression=None) as socket:
            for frame in script:
                await socket.send(frame)
                if PING in frame:
                    while PING not in await socket.recv():
                        pass

    for _ in range(rounds):
        await asyncio.gather(*(call() for _ in range(calls)))
    return calls * rounds * len(script)


async def paced(url: str, calls: int, seconds: float, script: list[str]) -> Pace:
    """Like real calls: a frame every 0.8 s, a ping every 2 s, a hundred new calls a second at the beginning."""
    found = Pace(replies=[], pings=[])
    spoken = [frame for frame in script if PING not in frame]

    async def call(number: int) -> None:
        await asyncio.sleep(number / NEW_CALLS_A_SECOND)
        async with websockets.connect(f"{url}/paced-{number}-{time.time_ns()}", compression=None) as socket:
            await socket.recv()
            sent: dict[str, float] = {}
            reader = asyncio.create_task(_listen(socket, sent, found))
            await asyncio.gather(_speak(socket, spoken, seconds, sent, found), _ping(socket, seconds, sent, found))
            reader.cancel()

    await asyncio.gather(*(call(number) for number in range(calls)))
    return found


async def _speak(
    socket: websockets.ClientConnection, script: list[str], seconds: float, sent: dict, found: Pace
) -> None:
    end, frames_of_call = time.monotonic() + seconds, iter(script)
    while time.monotonic() < end:
        frame = next(frames_of_call, None)
        if frame is None:
            return
        if "response_required" in frame:
            sent["response"] = time.perf_counter()
        await socket.send(frame)
        found.frames += 1
        await asyncio.sleep(0.8)


async def _ping(socket: websockets.ClientConnection, seconds: float, sent: dict, found: Pace) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sent["ping_pong"] = time.perf_counter()
        await socket.send('{"interaction_type":"ping_pong","timestamp":1}')
        found.frames += 1
        await asyncio.sleep(2.0)


async def _listen(socket: websockets.ClientConnection, sent: dict, found: Pace) -> None:
    async for frame in socket:
        at = time.perf_counter()
        if PING in frame:
            found.pings.append((at - sent.pop("ping_pong", at)) * 1000)
        elif "response" in sent:
            found.replies.append((at - sent.pop("response")) * 1000)


def script(utterances: int, *, timed: bool) -> tuple[list[str], float]:
    """A call's frames and their mean size in kB."""
    texts = frames(utterances, timed=timed)
    return texts, sum(map(len, texts)) / len(texts) / 1000
