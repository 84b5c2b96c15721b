"""The list of calls: a log that is only read, found by many things, and never counted."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from calls.flags import FLAGS
from calls.models import Call, Event, Turn, Utterance
from tests.cast import START, make_agent, make_call, make_event, make_turn, say, staff

LIST = reverse("admin:calls_call_changelist")
PRUNE = reverse("admin:calls_call_prune")


class CallPages(TestCase):
    def setUp(self) -> None:
        self.log_in("view_call")

    def log_in(self, *permissions: str) -> None:
        self.client.force_login(staff(*permissions))

    def found(self, **asked: Any) -> list[str]:
        """The ids of the calls on the list, from the top."""
        return [call.call_id for call in self.client.get(LIST, asked).context["cl"].result_list]


class TestTheList(CallPages):
    def test_it_shows_the_newest_first(self) -> None:
        for days in (2, 1, 3):
            make_call(call_id=f"day{days}", started_at=START + timedelta(days=days))
        assert self.found() == ["day3", "day2", "day1"]

    def test_calls_of_one_moment_keep_their_order(self) -> None:
        calls = [make_call().call_id for _ in range(5)]
        assert self.found() == calls[::-1]

    def test_it_takes_the_same_queries_for_one_call_and_for_thirty(self) -> None:
        make_call(agent=make_agent())
        with self.assertNumQueries(6):
            self.client.get(LIST)
        for _ in range(29):
            make_call(agent=make_agent())
        with self.assertNumQueries(6):
            self.client.get(LIST)

    def test_it_never_counts(self) -> None:
        make_call()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            self.client.get(LIST, {"q": "hello", "flag": "error"})
        assert [query["sql"] for query in queries if "COUNT(" in query["sql"].upper()] == []

    def test_it_pages_without_counting(self) -> None:
        for number in range(120):
            make_call(call_id=f"call{number:03}", started_at=START + timedelta(seconds=number))
        pages = [self.found(p=page) for page in (1, 2, 3, 4)]
        assert [len(page) for page in pages] == [50, 50, 20, 0]
        assert [page[0] for page in pages[:3]] == ["call119", "call069", "call019"]
        middle = self.client.get(LIST, {"p": 2}).content.decode()
        assert "51–100" in middle
        assert 'rel="prev" href="?p=1"' in middle
        assert 'rel="next" href="?p=3"' in middle
        assert 'rel="next"' not in self.client.get(LIST, {"p": 3}).content.decode()

    def test_a_full_last_page_has_no_next(self) -> None:
        for _ in range(50):
            make_call()
        assert 'rel="next"' not in self.client.get(LIST).content.decode()

    def test_a_call_is_named_by_its_caller(self) -> None:
        make_call(from_number="<script>alert(1)</script>", is_test=True)
        content = self.client.get(LIST).content.decode()
        assert "<b>&lt;script&gt;alert(1)&lt;/script&gt;" in content
        assert ">Test</span>" in content

    def test_it_needs_permission(self) -> None:
        self.log_in("view_agent")
        assert self.client.get(LIST).status_code == 403


class TestALogIsNotEdited(CallPages):
    def test_nobody_adds_changes_or_deletes_a_call(self) -> None:
        self.log_in("view_call", "add_call", "change_call", "delete_call")
        call = make_call()
        add, delete = reverse("admin:calls_call_add"), reverse("admin:calls_call_delete", args=[call.pk])
        for page in (add, delete):
            assert (self.client.get(page).status_code, self.client.post(page).status_code) == (403, 403)
        self.client.post(call.get_absolute_url(), {"call_id": "other"})
        chosen = {"action": "delete_selected", "_selected_action": [call.pk], "post": "yes"}
        self.client.post(LIST, chosen)
        assert list(Call.objects.values_list("call_id")) == [(call.call_id,)]


class TestSearch(CallPages):
    def setUp(self) -> None:
        super().setUp()
        self.call = make_call(call_id="call_abc123", from_number="+14155550123", to_number="+18005550199")
        say(self.call, 0, "I would like two Margheritas")
        say(self.call, 1, "two margheritas, coming up", role="agent")
        make_call(call_id="call_other")

    def test_it_finds_what_an_operator_types(self) -> None:
        for term in (
            "call_abc",
            "ABC123",
            "+14155550123",
            "(415) 555-0123",
            "800 555",
            "two margheritas",
            "MARGHERITAS",
        ):
            with self.subTest(term):
                assert self.found(q=term) == ["call_abc123"]

    def test_it_finds_nothing_else(self) -> None:
        for term in ("call_abcd", "555-0124", "calzone"):
            with self.subTest(term):
                assert self.found(q=term) == []

    def test_the_command_palette_reads_no_more_than_it_shows(self) -> None:
        for _ in range(30):
            make_call()
        found = self.client.get(reverse("admin:search"), {"s": "call_", "extended": 1}).context["results"]
        assert len(found.object_list) == 20

    def test_two_digits_are_no_number(self) -> None:
        assert self.found(q="41") == []


class TestFilters(CallPages):
    def test_by_agent_status_and_test(self) -> None:
        agent = make_agent()
        make_call(call_id="ended", agent=agent)
        make_call(call_id="live", status="live")
        make_call(call_id="test", is_test=True)
        assert self.found(agent__id__exact=agent.pk) == ["ended"]
        assert self.found(status__exact="live") == ["live"]
        assert self.found(is_test__exact=1) == ["test"]

    def test_by_day_with_both_days_included(self) -> None:
        for day in (1, 2, 3):
            make_call(call_id=f"day{day}", started_at=START.replace(day=day, hour=23, minute=59))
        assert self.found(started_at_from="2026-03-02") == ["day3", "day2"]
        assert self.found(started_at_to="2026-03-02") == ["day2", "day1"]
        assert self.found(started_at_from="2026-03-02", started_at_to="2026-03-02") == ["day2"]

    def test_a_day_that_is_none_filters_nothing(self) -> None:
        make_call(call_id="one")
        for day in ("yesterday", "2026-02-31", ""):
            assert self.found(started_at_from=day) == ["one"]

    def test_ticked_flags_are_alternatives(self) -> None:
        make_call(call_id="plain")
        make_call(call_id="failed", failed_count=1)
        make_call(call_id="late", timed_out_count=1)
        assert self.found(flag="error") == ["failed"]
        assert self.found(flag=["error", "timed_out"]) == ["late", "failed"]


class TestFlags(CallPages):
    SAMPLES: tuple[dict[str, Any], ...] = (
        {},
        {"fallback_count": 2},
        {"failed_count": 1},
        {"timed_out_count": 1},
        {"interrupted_count": 1},
        {"superseded_count": 3},
        {"sockets": 3},
        {"close_code": 1001},
        {"close_code": 1006},
        {"close_code": None},
        {"closed_by": "server"},
        {"closed_by": "network", "close_code": None},
        {"status": "live"},
        {"odd_frames": 1},
        {"events_dropped": 7},
    )

    def test_a_badge_and_its_filter_mean_the_same(self) -> None:
        calls = [make_call(**sample) for sample in self.SAMPLES]
        for flag in FLAGS:
            with self.subTest(flag.name):
                having = {call.pk for call in calls if flag.count(call)}
                assert set(Call.objects.filter(flag.where).values_list("pk", flat=True)) == having
                assert having != set(), "no sample has this flag"

    def test_badges_say_it_in_words_with_how_often(self) -> None:
        make_call(fallback_count=2, failed_count=1, sockets=2, closed_by="server", close_code=1011)
        content = self.client.get(LIST).content.decode()
        badges = [
            f">{text}</span>" in content for text in ("Fallback ×2", "Error", "Reconnected", "Odd close", "Timed out")
        ]
        assert badges == [True, True, True, True, False]


class TestPruning(CallPages):
    def setUp(self) -> None:
        super().setUp()
        now = timezone.now()
        self.old = [make_call(started_at=now - timedelta(days=40)) for _ in range(3)]
        self.new = make_call(started_at=now - timedelta(days=2))
        self.live = make_call(started_at=now - timedelta(days=40), status="live")
        for call in (*self.old, self.new):
            say(call, 0, "words", turn=make_turn(call, 1))
            make_event(call, "socket opened")

    def kept(self) -> set[Call]:
        return set(Call.objects.all())

    def test_the_command_deletes_old_calls_with_all_that_is_theirs(self) -> None:
        out = StringIO()
        with patch("calls.models.PRUNE_AT_ONCE", 2):
            call_command("prune_calls", days=30, stdout=out)
        assert out.getvalue() == "Deleted 3 calls that ended more than 30 days ago.\n"
        assert self.kept() == {self.new, self.live}
        assert [model.objects.count() for model in (Turn, Utterance, Event)] == [1, 1, 1]

    def test_the_command_wants_whole_days(self) -> None:
        with pytest.raises(CommandError):
            call_command("prune_calls", days=0)

    def test_the_page_says_how_many_before_it_deletes(self) -> None:
        self.log_in("view_call", "prune_call")
        self.assertContains(self.client.get(PRUNE, {"days": 30}), "<strong>3 calls</strong> ended before")
        assert len(self.kept()) == 5
        response = self.client.post(PRUNE, {"days": 30}, follow=True)
        self.assertContains(response, "Deleted 3 calls that ended more than 30 days ago.")
        assert self.kept() == {self.new, self.live}

    def test_the_page_stops_counting_where_it_no_longer_matters(self) -> None:
        self.log_in("view_call", "prune_call")
        with patch("calls.admin.PRUNE_COUNTED", 2):
            self.assertContains(self.client.get(PRUNE, {"days": 30}), "<strong>More than 2 calls</strong>")

    def test_the_page_stops_when_it_takes_too_long(self) -> None:
        self.log_in("view_call", "prune_call")
        with patch("calls.admin.PRUNE_SECONDS", -1), patch("calls.models.PRUNE_AT_ONCE", 1):
            response = self.client.post(PRUNE, {"days": 30}, follow=True)
        self.assertContains(response, "Deleted 1 calls so far.")
        assert len(self.kept()) == 4

    def test_a_wrong_number_of_days_deletes_nothing(self) -> None:
        self.log_in("view_call", "prune_call")
        for days in ("0", "-3", "all", ""):
            assert self.client.post(PRUNE, {"days": days}).status_code == 200
        assert len(self.kept()) == 5

    def test_it_has_a_permission_of_its_own(self) -> None:
        self.log_in("view_call", "delete_call")
        assert (self.client.get(PRUNE).status_code, self.client.post(PRUNE, {"days": 30}).status_code) == (403, 403)
        assert PRUNE not in self.client.get(LIST).content.decode()
        assert len(self.kept()) == 5
