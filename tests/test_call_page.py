"""The page of a call explains it: who said what when, what was sent, heard and dropped, and how it ended."""

from __future__ import annotations

import json
import time

from django.test import SimpleTestCase, TestCase
from django.urls import reverse

from calls import words
from calls.call_page import call_page
from calls.models import Call, Turn, Utterance
from calls.timeline import NoteRow, Row, SaidRow, TurnRow, split
from tests.cast import after, make_agent, make_call, make_event, make_turn, say, staff


def told(call: Call) -> list[str]:
    """The timeline in short: one line a row."""
    return [_line(row) for row in call_page(call)["rows"]]


def _line(row: Row) -> str:
    if isinstance(row, SaidRow):
        return f"{row.offset} {row.who}: {row.text}"
    if isinstance(row, TurnRow):
        dropped = f" [{row.dropped_why}: {row.dropped}]" if row.dropped else ""
        return f"{row.offset} #{row.number} {row.outcome}: {row.heard}{dropped}"
    assert isinstance(row, NoteRow)
    return f"{row.offset} {row.title}: {row.facts}"


def only_turn(call: Call) -> TurnRow:
    return next(row for row in call_page(call)["rows"] if isinstance(row, TurnRow))


class TestTheConversation(TestCase):
    def setUp(self) -> None:
        self.call = make_call()

    def test_it_is_told_in_order(self) -> None:
        greeting = make_turn(self.call, 1, 0.1, kind="begin", text="How may I help you?", heard="How may I help you?")
        say(self.call, 0, "How may I help you?", 1.0, "agent", greeting)
        say(self.call, 1, "Two pizzas", 4.0)
        answer = make_turn(self.call, 2, 4.0, text="Coming up.", heard="Coming up.")
        say(self.call, 2, "Coming up.", 6.0, "agent", answer)
        assert told(self.call) == [
            "0:00.1 #1 Completed: How may I help you?",
            "0:04.0 Caller: Two pizzas",
            "0:04.0 #2 Completed: Coming up.",
            "1:30.0 Call ended: by the platform, code 1000; the ordinary end of a call",
        ]

    def test_the_transcript_keeps_its_own_order(self) -> None:
        """A later entry that was first seen earlier, because one before it was inserted, stays behind it."""
        say(self.call, 0, "first", 5.0)
        say(self.call, 1, "second", 3.0)
        assert told(self.call)[:2] == ["0:05.0 Caller: first", "0:05.0 Caller: second"]

    def test_words_that_come_from_no_turn_are_still_shown(self) -> None:
        say(self.call, 0, "This call is recorded.", 1.0, "agent")
        say(self.call, 1, "Hello", 2.0, "transfer_target")
        say(self.call, 2, "?", 3.0, "supervisor")
        assert told(self.call)[:3] == [
            "0:01.0 Agent: This call is recorded.",
            "0:02.0 Transfer target: Hello",
            "0:03.0 supervisor: ?",
        ]

    def test_what_was_not_heard_is_told_apart(self) -> None:
        make_turn(self.call, 1, 1, text="Of course, what", outcome="superseded")
        make_turn(self.call, 2, 2, text="Delivered, or will you pick it up?", heard="Delivered, or")
        make_turn(self.call, 3, 3, text="Goodbye.")
        assert told(self.call)[:3] == [
            "0:01.0 #1 Superseded by a newer request:  [not heard: Of course, what]",
            "0:02.0 #2 Completed: Delivered, or  [not heard: will you pick it up?]",
            "0:03.0 #3 Completed:  [no transcript came after it, so whether it was heard is not known: Goodbye.]",
        ]

    def test_a_reconnect_is_told(self) -> None:
        self.call.sockets = 2
        make_event(self.call, "socket opened", '{"socket": 1, "from": "100.20.5.228"}', 0)
        make_event(self.call, "socket closed", '{"socket": 1, "by": "network", "code": 1006, "reason": ""}', 20)
        make_event(self.call, "socket opened", '{"socket": 2, "from": "100.20.5.228"}', 23)
        make_event(self.call, "odd frame", '{"kind": "mood", "why": "unknown interaction_type"}', 24)
        assert told(self.call)[:-1] == [
            "0:00.0 Socket opened: socket: 1, from: 100.20.5.228",
            "0:20.0 Socket closed: socket: 1, by: network, code: 1006",
            "0:23.0 Reconnected: socket: 2, from: 100.20.5.228",
            "0:24.0 Odd frame: kind: mood, why: unknown interaction_type",
        ]

    def test_a_reconnect_is_told_even_when_events_are_not_recorded(self) -> None:
        make_turn(self.call, 1, 1, text="Hi", heard="Hi")
        make_turn(self.call, 2, 9, socket=2, text="Hi", heard="Hi")
        assert told(self.call)[1] == "0:09.0 Reconnected: "

    def test_the_end_of_the_last_socket_is_told_once(self) -> None:
        make_event(self.call, "socket closed", '{"socket": 1, "by": "platform", "code": 1000}', 90)
        assert told(self.call) == ["1:30.0 Call ended: by the platform, code 1000; the ordinary end of a call"]

    def test_a_note_that_is_no_json_is_shown_as_it_is(self) -> None:
        make_event(self.call, "bad frame", "{broken", 1)
        assert told(self.call)[0] == "0:01.0 Bad frame: body: {broken"

    def test_a_live_call_has_no_end_yet(self) -> None:
        call = make_call(status="live")
        make_turn(call, 1, 1, outcome="open", text="Well, let me")
        assert told(call) == ["0:01.0 #1 In progress:  [not heard yet: Well, let me]"]


class TestATurn(TestCase):
    def setUp(self) -> None:
        self.call = make_call()

    def test_it_tells_how_long_each_part_took(self) -> None:
        moments = {"first_text_at": after(1.64), "first_sentence_at": after(2.1), "done_at": after(3.5)}
        make_turn(self.call, 1, 1.0, **moments)
        assert only_turn(self.call).timings == [
            ("first text", "640 ms"),
            ("first sentence", "1,100 ms"),
            ("done", "2,500 ms"),
        ]

    def test_it_tells_what_happens_after_it(self) -> None:
        for value, wanted in (
            ({"type": "end_call"}, "then hangs up"),
            ({"type": "transfer", "number": "+1415", "show_transferee_as_caller": False}, "then transfers to +1415"),
            ({"type": "press_digits", "digits": "12#"}, "then presses 12#"),
            (None, ""),
        ):
            assert words.action(value) == wanted

    def test_it_tells_what_it_used(self) -> None:
        run = {
            "id": "t",
            "name": "price",
            "arguments": "{}",
            "started": 1.0,
            "result": "9",
            "successful": True,
            "finished": 1.42,
        }
        open_run = {"id": "u", "name": "book", "arguments": "{}", "started": 1.0}
        make_turn(
            self.call, 1, tool_calls=[run, open_run], model="m-1", input_tokens=1200, output_tokens=8, error="oops"
        )
        turn = only_turn(self.call)
        assert (turn.cost, turn.error) == ("m-1, 1,200 tokens in, 8 tokens out", "oops")
        assert [(tool.name, tool.state, tool.took) for tool in turn.tools] == [
            ("price", "succeeded", "420 ms"),
            ("book", "no result", ""),
        ]

    def test_one_that_was_never_finished_says_so(self) -> None:
        make_turn(self.call, 1, outcome="open")
        assert only_turn(self.call).outcome == "Never finished"

    def test_every_outcome_and_kind_has_its_words(self) -> None:
        for number, (outcome, kind) in enumerate(((o, k) for o in Turn.Outcome for k in Turn.Kind), 1):
            make_turn(self.call, number, outcome=outcome, kind=kind, text="Hello")
        self.client.force_login(staff("view_call"))
        assert self.client.get(self.call.get_absolute_url()).status_code == 200


class TestSplitting(SimpleTestCase):
    def test_what_was_heard_and_what_was_not(self) -> None:
        for sent, heard, wanted in (
            ("Sure, right away.", "Sure, right away.", ("Sure, right away.", "", "")),
            ("Sure, right away.", "sure right", ("Sure, right ", "away.", "")),
            ("Sure, right away.", "", ("", "Sure, right away.", "")),
            (
                "It is $38.50 in all.",
                "thirty eight dollars and fifty cents",
                ("", "It is $38.50 in all.", "thirty eight dollars and fifty cents"),
            ),
            ("", "", ("", "", "")),
        ):
            with self.subTest(sent=sent, heard=heard):
                assert split(sent, heard) == wanted


class TestWords(SimpleTestCase):
    def test_times(self) -> None:
        assert [words.seconds(value) for value in (None, 0, 59.6, 61, 3600)] == ["–", "0:00", "1:00", "1:01", "1:00:00"]
        assert [words.offset(value) for value in (-1, 0.06, 59.96, 61.25)] == ["0:00.0", "0:00.1", "1:00.0", "1:01.2"]

    def test_closes(self) -> None:
        assert words.closing("platform", 1000) == "the ordinary end of a call"
        assert words.closing("server", 1000) == "to the platform this is the agent hanging up"
        assert words.closing("server", 1011) == words.UNEXPECTED
        assert words.closing("", None) == ""


class PageTest(TestCase):
    def setUp(self) -> None:
        self.client.force_login(staff("view_call"))

    def get(self, call: Call) -> str:
        return self.client.get(call.get_absolute_url()).content.decode()


class TestThePage(PageTest):
    def test_it_sums_the_call_up(self) -> None:
        call = make_call(
            agent=make_agent(name="Front desk"), turn_count=4, reply_ms_median=640, reply_ms_max=1900, sockets=2,
            closed_by="server", close_code=1011, close_reason="Server error.", disconnection_reason="error_unknown",
        )  # fmt: skip
        facts = {fact.label: (fact.value, fact.note) for fact in call_page(call)["summary"]}
        assert facts["Agent"] == ("Front desk", "")
        assert facts["Median reply"] == ("640 ms", "slowest 1,900 ms")
        assert facts["Reconnects"] == ("1", "")
        assert facts["Closed by"] == ("this server, code 1011 (Server error.)", words.UNEXPECTED)
        assert facts["The platform's reason"] == ("error_unknown", "")

    def test_a_turn_can_be_linked_to(self) -> None:
        call = make_call()
        make_turn(call, 12, outcome="failed")
        page = self.get(call)
        assert 'id="turn-12"' in page
        assert '<a href="#turn-12">#12 Responder failed, fallback said</a>' in page

    def test_what_strangers_wrote_is_text(self) -> None:
        evil = "<script>alert(1)</script>"
        call = make_call(
            call_id=evil, from_number=evil, to_number=evil, close_reason=evil, disconnection_reason=evil,
            direction=evil, variables={evil: evil}, metadata={"deep": [evil]}, details={evil: {evil: evil}},
            agent_settings={"name": evil}, agent=make_agent(name=evil),
        )  # fmt: skip
        say(call, 0, evil, role=evil)
        make_turn(
            call, 1, text=evil, error=evil, model=evil, action={"type": "transfer", "number": evil},
            tool_calls=[{"name": evil, "arguments": evil, "result": evil}],
        )  # fmt: skip
        make_event(call, evil[:60], json.dumps({evil: evil}))
        for page in (call.get_absolute_url(), reverse("admin:calls_call_events", args=[call.pk])):
            content = self.client.get(page).content.decode()
            assert "&lt;script&gt;alert(1)" in content
            assert evil not in content

    def test_a_call_that_is_gone_leads_back_to_the_list(self) -> None:
        for name in ("999", "x", "999/change"):
            response = self.client.get(f"{reverse('admin:calls_call_changelist')}{name}/", follow=True)
            assert response.redirect_chain[-1][0] == reverse("admin:calls_call_changelist")

    def test_it_needs_permission(self) -> None:
        call = make_call()
        self.client.force_login(staff("view_agent"))
        for page in (call.get_absolute_url(), reverse("admin:calls_call_events", args=[call.pk])):
            assert self.client.get(page).status_code == 403

    def test_it_takes_the_same_queries_for_one_turn_and_for_five_hundred(self) -> None:
        short, long = make_call(agent=make_agent()), make_call(agent=make_agent())
        talk(short, 1)
        talk(long, 500)
        with self.assertNumQueries(8):
            self.get(short)
        began = time.process_time()
        with self.assertNumQueries(8):
            self.get(long)
        assert time.process_time() - began < 1.0


def talk(call: Call, turns: int) -> None:
    """A conversation of that many turns."""
    Turn.objects.bulk_create(
        Turn(
            call=call,
            number=number,
            response_id=number,
            kind="response",
            outcome="completed",
            asked_at=after(number),
            text="Yes.",
            heard="Yes.",
        )
        for number in range(1, turns + 1)
    )
    Utterance.objects.bulk_create(
        Utterance(
            call=call,
            position=2 * turn.number + own,
            role="agent" if own else "user",
            text="Yes.",
            turn=turn if own else None,
            first_seen_at=turn.asked_at,
            changed_at=turn.asked_at,
        )
        for turn in call.turns.all()
        for own in (0, 1)
    )
    make_event(call, "socket opened", '{"socket": 1}')
