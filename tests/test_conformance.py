"""The checklist of protocol.md section 12, C1 to C27, over a real server. Each test names its row."""

from __future__ import annotations

import asyncio
import json

import pytest

from agents.actions import EndCall, PressDigits, Transfer
from calls.protocol import (
    AgentConfig,
    Config,
    ConfigFlags,
    Metadata,
    Response,
    ToolCallInvocation,
    ToolCallResult,
    UpdateAgent,
)
from tests.live import SCRIPTED, add_agents, played, set_default
from tests.phone import dial, refusal
from tests.servers import Daphne, Servers

FALLBACK = "I am sorry, can you say that again?"
ODD_FRAMES = [
    "[]", "42", '"x"', "null", "{}", '{"interaction_type":7}', '{"interaction_type":"brand_new_kind"}',
    '{"interaction_type":"response_required"}', '{"interaction_type":"response_required","response_id":"x"}',
    '{"interaction_type":"response_required","response_id":1.5}',
    '{"interaction_type":"response_required","response_id":true}', '{"interaction_type":"ping_pong"}',
    '{"interaction_type":"update_only","transcript":[7]}', '{"interaction_type":"call_details","call":3}',
]  # fmt: skip


@pytest.fixture(scope="module")
def server(module_daphne: Servers) -> Daphne:
    return module_daphne(env={**SCRIPTED, "LLM_MAX_FRAME_BYTES": "200000"})


@pytest.fixture(scope="module")
def url(server: Daphne) -> dict[str, str]:
    """The URLs of agents made for these tests."""
    quick = {"first_text_s": 0.4, "reply_s": 1.2, "hold_after_s": 0.3}
    plain = {"responder": "scripted", "auto_reconnect": False, "call_details": False}
    return add_agents(
        server,
        scripted={**plain, "responder": "scripted"},
        quick={**plain, **quick},
        by_name={"greeting": "Harbor Cycles, hi {{customer_name}}.", "responder": "scripted"},
        second={**plain, "speak_first": False},
        holding={**plain, "hold_after_s": 0.2, "hold_line": "One moment, please."},
        broken={**plain, "responder": "broken"},
    )


@played
async def test_c1_the_path_with_and_without_a_slash(server: Daphne) -> None:
    for path in ("/llm-websocket/c1", "/llm-websocket/c1-again/"):
        async with dial(server.ws_url.removesuffix("/llm-websocket") + path, url_has_call_id=True) as phone:
            await phone.expect_greeting("How may I help you?")


@pytest.mark.parametrize(
    "path", ["/llm-websocket/", "/llm-websocket", "/llm-websocket//", "/", "/other/c1", "/a/llm-websocket/x"]
)
@played
async def test_c1_other_paths_and_an_empty_id_are_refused(server: Daphne, path: str) -> None:
    assert await refusal(server.ws_url.removesuffix("/llm-websocket") + path, url_has_call_id=True) == 403


@played
async def test_c3_no_origin_cookie_session_or_subprotocol_is_needed(server: Daphne) -> None:
    async with dial(server.ws_url, headers={"Origin": "https://elsewhere.example"}) as phone:
        await phone.expect_greeting("How may I help you?")
    async with dial(server.ws_url) as phone:
        await phone.expect_greeting("How may I help you?")


@played
async def test_c4_config_comes_first_then_one_begin_message(url: dict[str, str]) -> None:
    async with dial(url["by_name"], details={"retell_llm_dynamic_variables": {"customer_name": "Ines"}}) as phone:
        await phone.expect(
            Config(ConfigFlags(auto_reconnect=True, call_details=True)), Response(0, "Harbor Cycles, hi Ines.", True)
        )
        await phone.quiet()


@played
async def test_c5_the_caller_may_speak_first(url: dict[str, str]) -> None:
    async with dial(url["second"]) as phone:
        await phone.expect_greeting("")
        await phone.expect_reply("done Yes?", "Yes?")


@played
async def test_c6_the_greeting_falls_back_when_no_details_come(url: dict[str, str]) -> None:
    async with dial(url["by_name"], details=None) as phone:
        await phone.expect_greeting("Harbor Cycles, hi.")


@played
async def test_c7_pings_are_echoed_while_a_reply_hangs(url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        await phone.ask("say Wait. | hang")
        assert max([await phone.ping() for _ in range(20)]) < 1000


@played
async def test_c7_pings_are_echoed_while_a_reply_floods(url: dict[str, str]) -> None:
    for flood in ("flood", "flood_silently"):
        async with dial(url["quick"]) as phone:
            await phone.greeting()
            number = await phone.ask(flood)
            assert max([await phone.ping() for _ in range(10)]) < 1000
            assert (await phone.reply(number)).text.endswith(FALLBACK)


@played
async def test_c8_updates_and_details_are_never_answered(server: Daphne) -> None:
    async with dial(server.ws_url) as phone:
        await phone.greeting()
        await phone.update("Hello", turntaking="user_turn")
        await phone.update("Hello there", turntaking="agent_turn")
        await phone.send_details()
        await phone.quiet()


@played
async def test_c9_requests_and_reminders_are_answered_under_their_id(server: Daphne) -> None:
    async with dial(server.ws_url) as phone:
        await phone.greeting()
        first = await phone.expect_reply("Hello", FALLBACK)
        second = await phone.silence()
        assert (first.frames[0].response_id, second.frames[0].response_id) == (1, 2)  # type: ignore[union-attr]
        assert second.text == FALLBACK


@played
async def test_c10_a_stream_ends_in_one_final_frame(url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        reply = await phone.say("say Yes, | say it is | done ready.")
        assert reply.frames == [
            Response(1, "Yes, ", False), Response(1, "it is ", False), Response(1, "ready.", True),
        ]  # fmt: skip


@played
async def test_c11_and_c12_a_newer_request_silences_and_stops_the_older_reply(
    server: Daphne, url: dict[str, str]
) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        for number in range(1, 31):
            await phone.ask(f">> say Sure {number}, | dribble")
            while await phone.next_frame() != Response(number, f"Sure {number}, ", False):
                pass
        await phone.expect_reply(">> done Enough.", "Enough.")
        await phone.quiet()
        ids = [frame.response_id for frame in phone.frames if isinstance(frame, Response)]
        assert ids == sorted(ids)  # frames that were on their way when a request was sent are no fault
    for number in range(1, 31):
        server.process.wait_for(rf"tests\.scripted: closed {number}\b")


@played
async def test_c12_hanging_up_stops_the_reply(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        await phone.ask("say Wait. | hang", response_id=77001)
        await phone.next_frame()
    server.process.wait_for(r"tests\.scripted: closed 77001")


@played
async def test_c13_updates_do_not_disturb_a_reply(url: dict[str, str]) -> None:
    async with dial(url["quick"]) as phone:
        await phone.greeting()
        number = await phone.ask("say One | hang")
        await phone.next_frame()
        for words in ("and", "and then", "and then some"):
            await phone.update(words, turntaking="user_turn")
        assert (await phone.reply(number)).text == "One " + FALLBACK


@pytest.mark.parametrize(
    ("script", "heard"),
    [
        ("crash no reason", FALLBACK),
        ("say We do. | crash halfway", "We do. " + FALLBACK),
        ("nothing", FALLBACK),
        ("done", FALLBACK),
        ("hang", FALLBACK),
        ("say We do. | hang", "We do. " + FALLBACK),
        ("stubborn", FALLBACK),
        ("unknown_step", FALLBACK),
    ],
)
@played
async def test_c14_every_reply_is_completed_whatever_the_responder_does(
    url: dict[str, str], script: str, heard: str
) -> None:
    async with dial(url["quick"]) as phone:
        await phone.greeting()
        assert (await phone.say(script)).text == heard
        await phone.expect_reply("done And again.", "And again.")
        await phone.quiet()


@played
async def test_c14_a_responder_that_cannot_be_made_falls_back(url: dict[str, str]) -> None:
    async with dial(url["broken"]) as phone:
        await phone.greeting()
        await phone.expect_reply("Hello", FALLBACK)


@played
async def test_c14_an_empty_transcript_is_answered(url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        await phone.send({"interaction_type": "response_required", "response_id": 1, "transcript": []})
        assert (await phone.reply(1)).text == "empty"


@played
async def test_c15_every_frame_has_exact_types_and_its_kind(url: dict[str, str]) -> None:
    """The phone checks each frame it hears; here one of every kind goes by."""
    async with dial(url["by_name"], details={"call_id": "c15"}) as phone:
        await phone.greeting()
        await phone.say('tool tc1 look {} found | listen {"responsiveness":0.5} | browser {"a":1} | done Yes.')
        assert phone.violations == []


@played
async def test_c16_a_reminder_is_marked_for_the_responder(url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        assert (await phone.silence()).text == "reminded"


@pytest.mark.parametrize(
    ("script", "action"),
    [
        ("end Bye!", EndCall()),
        ("transfer +15035550177 One moment.", Transfer("+15035550177", True)),
        ("press 204#", PressDigits("204#")),
    ],
)
@played
async def test_c17_one_action_on_the_last_frame(url: dict[str, str], script: str, action: object) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        reply = await phone.say(f"say Well. | {script}" if not script.startswith("press") else script)
        assert reply.action == action
        assert [frame.action for frame in reply.frames[:-1]] == [None] * (len(reply.frames) - 1)


@played
async def test_c17_a_reminder_repeats_what_was_talked_over_and_a_request_shows_it(url: dict[str, str]) -> None:
    """A16."""
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        await phone.say("end Bye!")
        assert (await phone.silence()).action == EndCall()
        await phone.expect_reply("pending", "pending EndCall()")
        await phone.expect_reply("pending", "pending None")


@played
async def test_c18_a_protected_reply_has_the_flag_on_all_its_frames(url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        reply = await phone.say("protect | say Thanks | say for calling. | end Bye!")
        assert [frame.no_interruption_allowed for frame in reply.frames] == [True, True, True]


@played
async def test_c20_tool_events_live_settings_and_metadata(url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        await phone.ask(
            'listen {"reminder_trigger_ms":30000,"responsiveness":0.3} | tool tc_9 look {"a":1} failed | '
            'browser {"card":"ticket"} | done Yes.'
        )
        await phone.expect(
            UpdateAgent(AgentConfig(responsiveness=0.3, reminder_trigger_ms=30000)),
            ToolCallInvocation("tc_9", "look", '{"a":1}'),
            ToolCallResult("tc_9", "failed", False),
            Metadata({"card": "ticket"}),
            Response(1, "Yes.", True),
        )


@played
async def test_c20_live_settings_out_of_range_never_leave_the_server(url: dict[str, str]) -> None:
    async with dial(url["scripted"]) as phone:
        await phone.greeting()
        await phone.expect_reply('listen {"responsiveness":7} | done Yes.', FALLBACK)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("hello", "Cannot parse incoming message."),
        ("", "Cannot parse incoming message."),
        ('{"interaction_type":', "Cannot parse incoming message."),
        ('{"a":"' + "x" * 200_000 + '"}', "Cannot parse incoming message."),
        (b"\x00\x01", "Cannot find corresponding Retell LLM."),
    ],
    ids=["no JSON", "empty", "truncated", "too large", "binary"],
)
@played
async def test_c21_bad_frames_close_with_1002_and_end_all_processing(
    server: Daphne, frame: str | bytes, reason: str
) -> None:
    async with dial(server.ws_url, deviations=True) as phone:
        await phone.greeting()
        await phone.send_raw(frame)
        await phone.send_raw('{"interaction_type":"ping_pong","timestamp":1}')
        await phone.expect_closed(1002, reason)
        assert [type(frame) for frame in phone.frames] == [Response]


@played
async def test_c22_odd_frames_leave_the_call_working(server: Daphne) -> None:
    async with dial(server.ws_url, "c22") as phone:
        await phone.greeting()
        for frame in ODD_FRAMES:
            await phone.send_raw(frame)
        await phone.quiet()
        await phone.expect_reply("Hello", FALLBACK)


@played
async def test_c23_a_fault_of_ours_is_1011_and_never_a_hang_up(server: Daphne, url: dict[str, str]) -> None:
    async with dial(url["scripted"], "c23", deviations=True) as phone:
        await phone.greeting()
        await phone.ask("trip over this")
        await phone.expect_closed(1011, "Server error.")
    async with dial(url["scripted"], "c23") as again:
        await again.expect_greeting("How may I help you?")
        await again.expect_reply("done Still here.", "Still here.")


@played
async def test_c24_after_a_drop_config_no_second_greeting_and_the_answer_is_closed(url: dict[str, str]) -> None:
    async with dial(url["by_name"], details={"retell_llm_dynamic_variables": {"customer_name": "Ines"}}) as phone:
        await phone.greeting()
        await phone.ask("say We do. | hang", response_id=7)
        await phone.next_frame()
        await phone.drop()
        await phone.reconnect()
        await phone.expect(
            Config(ConfigFlags(auto_reconnect=True, call_details=True)), Response(0, "", True), Response(7, "", True)
        )
        await phone.quiet()


@played
async def test_c24_the_second_socket_wins_and_the_first_goes_quiet(url: dict[str, str]) -> None:
    """A14."""
    async with dial(url["scripted"], "c24-twice", deviations=True) as first:
        await first.greeting()
        await first.ask("say Wait. | dribble")
        async with dial(url["scripted"], "c24-twice", deviations=True) as second:
            assert await second.greeting() == ""
            await second.expect(Response(1, "", True))
            await first.send_raw('{"interaction_type":"ping_pong","timestamp":5}')
            await second.expect_reply("done Here.", "Here.")
            assert first.is_connected
            heard = len(first.frames)
            await second.quiet()
            assert len(first.frames) == heard


@played
async def test_c25_many_calls_at_once_keep_to_themselves(url: dict[str, str]) -> None:
    async def call(number: int) -> None:
        async with dial(url["scripted"], f"c25-{number}") as phone:
            await phone.greeting()
            for turn in range(5):
                await phone.expect_reply(f"say {number} | done {turn}", f"{number} {turn}")

    await asyncio.gather(*(call(number) for number in range(50)))


@played
async def test_c26_variables_and_metadata_reach_the_responder(url: dict[str, str]) -> None:
    details = {"metadata": {"crm": "C-881"}, "retell_llm_dynamic_variables": {"customer_name": "Ines"}}
    async with dial(url["by_name"], details=details) as phone:
        await phone.greeting()
        reply = await phone.say("variables")
        assert json.loads(reply.text) == [{"customer_name": "Ines"}, {"crm": "C-881"}]


@played
async def test_c27_credentials_are_in_no_log_and_no_row(server: Daphne, url: dict[str, str]) -> None:
    details = {"access_token": "sesame-4711", "call_type": "web_call"}
    async with dial(url["by_name"], "c27", details=details) as phone:
        await phone.greeting()
        assert await refusal(server.ws_url + "/wrong-key-4712", "c27-refused") == 403
    key = url["by_name"].rpartition("/")[2]
    server.process.wait_for("Refused a socket")
    stored = wait_for_call(server, "c27")
    for secret in ("sesame-4711", "wrong-key-4712", key):
        assert secret not in server.log
        assert secret not in stored


def wait_for_call(server: Daphne, call_id: str) -> str:
    """Everything that is stored of a call, once it has ended."""
    server.shell(
        "from calls.models import Call; from tests.waiting import until; "
        f"until(lambda: Call.objects.ended().filter(call_id={call_id!r}).exists())"
    )
    rows = server.rows("SELECT * FROM calls_call WHERE call_id = %s", call_id)
    rows += server.rows(
        "SELECT e.* FROM calls_event e JOIN calls_call c ON c.id = e.call_id WHERE c.call_id = %s", call_id
    )
    return repr(rows)


@played
async def test_a_hold_line_is_said_once_before_a_late_answer(url: dict[str, str]) -> None:
    async with dial(url["holding"]) as phone:
        await phone.greeting()
        number = await phone.ask("hang")
        assert await phone.next_frame() == Response(number, "One moment, please. ", False)


@played
async def test_speak_first_switched_off_in_the_admin_applies_to_the_next_call(module_daphne: Servers) -> None:
    server = module_daphne()
    async with dial(server.ws_url, "any_id") as before:
        await before.expect_greeting("How may I help you?")
        set_default(server, speak_first=False, fallback_text="Sorry?")
        async with dial(server.ws_url, "other_id") as after:
            await after.expect_greeting("")
            await after.expect_reply("Hello", "Sorry?")
        await before.expect_reply("Hello", FALLBACK)
