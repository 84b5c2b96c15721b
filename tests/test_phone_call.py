"""The pretend platform on the line: dialling, being answered, actions, and connections that are lost.
Nothing here tests our own server."""

from __future__ import annotations

import asyncio
from unittest import IsolatedAsyncioTestCase

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from agents.actions import EndCall, PressDigits, Transfer
from calls import protocol
from calls.phone import AddressError, HungUpError, Phone, RefusedError, SilenceError, UnreachableError, address
from tests.phone import dial, refusal
from tests.puppet import Line, answers, answers_only, serving


class Calling(IsolatedAsyncioTestCase):
    async def test_it_works(self) -> None:
        async with serving(answers) as url, dial(url) as phone:
            assert await phone.greeting() == "Hello."
            reply = await phone.say("Is my bike ready?")
            assert reply.text == "You said Is my bike ready?"
            assert reply.id == 1
            assert len(reply.frames) == 2
            assert 0 < reply.first_ms <= reply.done_ms
            assert (await phone.silence()).text == "Still there?"
            assert await phone.ping() > 0
            await phone.quiet()
            assert phone.transcript == [
                {"role": "agent", "content": "Hello."},
                {"role": "user", "content": "Is my bike ready?"},
                {"role": "agent", "content": "You said Is my bike ready?"},
                {"role": "agent", "content": "Still there?"},
            ]
        assert await phone.closed == (1000, "")

    async def test_the_call_id_is_the_last_segment(self) -> None:
        paths = []

        async def note(line: Line) -> None:
            paths.append(line.path)

        async with serving(note) as url:
            for base in (url, url + "/", url + "/key?tenant=7"):
                async with dial(base, "call_1"):
                    pass
            async with dial(url + "/call_2", url_has_call_id=True):
                pass
        assert paths == [
            "/llm-websocket/call_1",
            "/llm-websocket/call_1",
            "/llm-websocket/key/call_1?tenant=7",
            "/llm-websocket/call_2",
        ]

    async def test_the_handshake_carries_no_origin(self) -> None:
        found = []

        async def note(line: Line) -> None:
            found.append(line.socket.request.headers)

        async with serving(note) as url, dial(url, headers={"X-Forwarded-For": "100.20.5.228"}):
            pass
        assert "Origin" not in found[0]
        assert "User-Agent" not in found[0]
        assert found[0]["X-Forwarded-For"] == "100.20.5.228"

    async def test_a_refusal_has_the_status(self) -> None:
        def refuse(socket: ServerConnection, request: Request) -> Response:
            return socket.respond(403, "no")

        async with serve(answers, "127.0.0.1", 0, process_request=refuse) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/llm-websocket"
            assert await refusal(url) == 403
            with pytest.raises(RefusedError, match="HTTP 403"):
                await Phone(url).dial()
        with pytest.raises(UnreachableError):
            await Phone(url).dial()

    def test_an_address_that_cannot_be_dialled_is_said_so(self) -> None:
        for url in ("", "switchboard", "ftp://127.0.0.1/x", "ws://", "ws://[::1", "ws://host:port/"):
            with self.subTest(url), pytest.raises(AddressError):
                address(url, "call_1")
        assert address("https://host/llm/", "a b") == "wss://host/llm/a%20b"

    async def test_the_server_may_close(self) -> None:
        async def close(line: Line) -> None:
            await line.next("response_required")
            await line.socket.close(1002, "Cannot parse incoming message.")

        async with serving(close) as url, dial(url) as phone:
            with pytest.raises(HungUpError, match="1002"):
                await phone.say("Hello?")
            await phone.expect_closed(1002, "Cannot parse incoming message.")
            with pytest.raises(HungUpError):
                await phone.say("Hello?")

    async def test_silence_is_an_error_that_says_what_was_missed(self) -> None:
        async with serving(Line.echo_all) as url, dial(url) as phone:
            phone.timeout = 0.01
            with pytest.raises(SilenceError, match="the end of response 0"):
                await phone.greeting()
            with pytest.raises(SilenceError, match="another frame"):
                await phone.next_frame()


class Opening(IsolatedAsyncioTestCase):
    async def test_details_are_sent_when_the_config_asks(self) -> None:
        async def ask(line: Line) -> None:
            await line.send("config", config={"call_details": True})
            details = await line.next("call_details")
            await line.say(0, f"Hi {details['call']['retell_llm_dynamic_variables']['name']} on {line.path[-6:]}.")

        details = {"retell_llm_dynamic_variables": {"name": "Ines"}}
        async with serving(ask) as url, dial(url, "call_1", details=details) as phone:
            await phone.expect_greeting("Hi Ines on call_1.")

    async def test_details_can_be_withheld(self) -> None:
        async def ask(line: Line) -> None:
            await line.send("config", config={"call_details": True})
            assert (await line.next())["interaction_type"] == "ping_pong"
            await line.say(0, "Hello.")

        async with serving(ask) as url, dial(url, details=None) as phone:
            await phone.expect(protocol.Config(protocol.ConfigFlags(call_details=True)))
            await phone.send({"interaction_type": "ping_pong", "timestamp": 1})
            await phone.expect_greeting("Hello.")


class Actions(IsolatedAsyncioTestCase):
    async def test_the_action_follows_the_last_word(self) -> None:
        async def bye(line: Line) -> None:
            await line.say(0, "Bye!", no_interruption_allowed=True, end_call=True)

        async with serving(bye) as url, dial(url) as phone:
            reply = await phone.reply(0)
            assert await phone.acted() == EndCall()
            assert reply.action == EndCall()
            assert reply.protected

    async def test_an_interrupted_action_is_discarded(self) -> None:
        async def transfer(line: Line) -> None:
            await line.say(0, "I will put you through now.", transfer_number="+15035550177")
            await line.next("response_required")
            await line.say(1, "", digit_to_press="1#")

        async with serving(transfer) as url, dial(url, pace=0.01) as phone:
            reply = await phone.reply(0)
            assert reply.action == Transfer("+15035550177")
            assert phone.action is None
            await phone.interrupt("No!")
            assert await phone.acted() == PressDigits("1#")


class KeepingAlive(IsolatedAsyncioTestCase):
    async def test_pings_start_when_the_config_asks(self) -> None:
        pinged = asyncio.Event()

        async def alive(line: Line) -> None:
            await line.send("config", config={"auto_reconnect": True})
            await line.say(0, "Hello.")
            for _ in range(3):
                await line.echo(await line.next())
            pinged.set()

        async with serving(alive) as url, dial(url, keepalive=0.001) as phone:
            await phone.greeting()
            await asyncio.wait_for(pinged.wait(), 5)

    async def test_a_lost_keepalive_leads_to_a_reconnect_twice(self) -> None:
        sockets = []

        async def deaf(line: Line) -> None:
            sockets.append(line)
            await line.send("config", config={"auto_reconnect": True})
            await line.say(0, "" if len(sockets) > 1 else "Hello.")

        lost = {"keepalive": 0.001, "keepalive_lost": 0.005, "reconnects": True}
        async with serving(deaf) as url, dial(url, deviations=True, **lost) as phone:
            assert (await phone.closed).code == 1006
        assert (len(sockets), phone.redials) == (3, 2)
        assert "the keepalive is lost" in phone.violations[0]

    async def test_a_dropped_socket_can_be_dialled_again(self) -> None:
        codes = []

        async def first(line: Line) -> None:
            await line.say(0, "Hello.")
            await line.next("response_required")
            await line.say(1, "We do. ", done=False)
            await line.socket.wait_closed()
            codes.append(line.socket.close_code)

        async def second(line: Line) -> None:
            await line.say(0, "")
            await line.say(1, "")
            await answers_only(line)

        async with serving(first, second) as url, dial(url) as phone:
            await phone.greeting()
            await phone.ask("Do you rent bikes?")
            await phone.next_frame()
            await phone.drop()
            assert (await phone.closed).code == 1006
            await phone.reconnect()
            await phone.expect(protocol.Response(0, "", True), protocol.Response(1, "", True))
            assert (await phone.reply(1)).text == "We do. "
            await phone.expect_reply("Hello?", "Here I am.")
        assert codes == [1006]

    async def test_an_abnormal_end_is_dialled_again_when_wanted(self) -> None:
        async def die(line: Line) -> None:
            await line.say(0, "Hello.")
            line.socket.transport.abort()

        async def live(line: Line) -> None:
            await line.say(0, "")
            await answers_only(line)

        async with serving(die, live) as url, dial(url, reconnects=True) as phone:
            await phone.greeting()
            await phone.expect(protocol.Response(0, "", True))
            await phone.expect_reply("Hello?", "Here I am.")
