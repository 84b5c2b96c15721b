"""Many calls, and peers that behave badly: nobody pays for it but themselves."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from tests.live import SCRIPTED, add_agents, played
from tests.phone import dial
from tests.recorded import ended, pick, turns
from tests.servers import Daphne, Servers
from tests.waiting import until

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(module_daphne: Servers) -> Daphne:
    return module_daphne("--ping-interval=1", "--ping-timeout=1", env=SCRIPTED)


@pytest.fixture(scope="module")
def url(server: Daphne) -> str:
    plain = {"responder": "scripted", "auto_reconnect": False, "call_details": False}
    return add_agents(server, plain=plain)["plain"]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def busy(request: pytest.FixtureRequest, module_daphne: Servers) -> Daphne:
    if request.param == "postgres":
        request.getfixturevalue("postgres_url")
    return module_daphne(database=request.param, env=SCRIPTED)


class Mute:
    """A peer that sends and never reads: not even the handshake's answer, once it is in."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line

    async def send(self, frame: dict[str, Any]) -> None:
        wire = Frame(Opcode.TEXT, json.dumps(frame).encode()).serialize(mask=True)
        await asyncio.get_running_loop().sock_sendall(self.line, wire)


@asynccontextmanager
async def mute(server: Daphne, url: str, call_id: str) -> AsyncIterator[Mute]:
    loop = asyncio.get_running_loop()
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.setblocking(False)
        await loop.sock_connect(line, ("127.0.0.1", server.port))
        path = url.partition(f":{server.port}")[2]
        await loop.sock_sendall(
            line,
            f"GET {path}/{call_id} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
        )
        assert (await loop.sock_recv(line, 64)).startswith(b"HTTP/1.1 101")
        yield Mute(line)


def memory(server: Daphne) -> int:
    """Bytes that the server really holds."""
    [found] = [line for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(found.split()[1]) * 1024


@played
async def test_two_hundred_calls_at_once_are_answered_once_each_and_recorded(busy: Daphne) -> None:
    url = add_agents(busy, plain={"responder": "scripted", "auto_reconnect": False, "call_details": False})["plain"]

    async def call(number: int) -> None:
        async with dial(url, f"many-{number}", timeout=20) as phone:
            await phone.expect_greeting("How may I help you?")
            for turn in range(4):
                await phone.expect_reply(f">> say {number} | done {turn}", f"{number} {turn}")
            await phone.quiet()

    await asyncio.gather(*(call(number) for number in range(200)))
    counted = (
        "SELECT c.call_id, count(*) AS turns FROM calls_call c JOIN calls_turn t ON t.call_id = c.id "
        "WHERE c.status = 'ended' AND t.outcome = 'completed' GROUP BY c.call_id ORDER BY c.call_id"
    )
    await asyncio.to_thread(until, lambda: len(busy.rows(counted)) == 200)
    everyone = sorted(f"many-{number}" for number in range(200))
    assert [pick(row, "call_id", "turns") for row in busy.rows(counted)] == [(name, 5) for name in everyone]
    spoken = [turn["text"] for turn in turns(busy, ended(busy, "many-123"))]
    assert spoken == ["How may I help you?", "123 0", "123 1", "123 2", "123 3"]


@played
async def test_a_peer_that_never_reads_fills_no_memory_and_delays_nobody(server: Daphne, url: str) -> None:
    said = [{"role": "user", "content": "flood"}]
    async with dial(url, "beside") as beside:
        await beside.greeting()
        before, slowest = memory(server), 0.0
        async with mute(server, url, "deaf") as deaf:
            for number in range(5001, 5041):
                await deaf.send({"interaction_type": "response_required", "response_id": number, "transcript": said})
                slowest = max(slowest, await beside.ping())
                await asyncio.to_thread(server.process.wait_for, rf"tests\.scripted: closed {number}\b")
            assert memory(server) - before < 60 * MIB
        assert slowest < 1000
        await beside.expect_reply(">> done Yes.", "Yes.")
    call = await asyncio.to_thread(ended, server, "deaf")
    assert pick(call, "closed_by", "turn_count") == ("network", 40)


@played
async def test_a_peer_that_is_gone_without_a_word_is_noticed(server: Daphne, url: str) -> None:
    async with mute(server, url, "vanished") as peer:
        said = [{"role": "user", "content": "say Wait. | hang"}]
        await peer.send({"interaction_type": "response_required", "response_id": 1, "transcript": said})
        call = await asyncio.to_thread(ended, server, "vanished")
    assert pick(call, "close_code", "closed_by") == (1006, "network")
    assert [pick(turn, "outcome", "text") for turn in turns(server, call)] == [
        ("completed", "How may I help you?"),
        ("cut_off", "Wait. "),
    ]
    server.process.wait_for(r"tests\.scripted: closed 1\b")


@played
async def test_half_a_frame_and_then_nothing_ends_its_own_call_only(server: Daphne, url: str) -> None:
    async with dial(url, "whole") as whole, mute(server, url, "half") as half:
        await whole.greeting()
        await asyncio.get_running_loop().sock_sendall(half.line, b"\x81\xfe\xff")
        call = await asyncio.to_thread(ended, server, "half")
        assert call["closed_by"] == "network"
        await whole.expect_reply(">> done Yes.", "Yes.")


@played
async def test_broken_framing_ends_its_own_call_only(server: Daphne, url: str) -> None:
    async with dial(url, "sound") as sound:
        await sound.greeting()
        for number, rubbish in enumerate(
            (b"\xff" * 64, b"\x81\x05hello", b"\x08\x80\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n")
        ):
            async with mute(server, url, f"rubbish-{number}") as peer:
                await asyncio.get_running_loop().sock_sendall(peer.line, rubbish)
                await asyncio.to_thread(ended, server, f"rubbish-{number}")
        await sound.expect_reply(">> done Yes.", "Yes.")
