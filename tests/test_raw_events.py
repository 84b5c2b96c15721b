"""The raw events of a call: folded away, and fetched two hundred at a time however many there are."""

from __future__ import annotations

from typing import Any

from django.test import TestCase
from django.urls import reverse

from calls.models import Event
from tests.cast import START, make_call, make_event, staff


class TestRawEvents(TestCase):
    def setUp(self) -> None:
        self.client.force_login(staff("view_call"))
        self.call = make_call()
        Event.objects.bulk_create(
            Event(call=self.call, at=START, direction="in", kind=f"kind{number}", body="{}") for number in range(450)
        )
        self.url = reverse("admin:calls_call_events", args=[self.call.pk])

    def kinds(self, **asked: Any) -> tuple[list[str], Any, Any]:
        context = self.client.get(self.url, asked).context
        return [event.kind for event in context["events"]], context["before"], context["after"]

    def test_they_are_folded_away_behind_a_link(self) -> None:
        page = self.client.get(self.call.get_absolute_url()).content.decode()
        assert "kind7" not in page
        assert f'href="{self.url}"' in page
        assert f'data-rows="{self.url}?rows"' in page

    def test_they_come_two_hundred_at_a_time(self) -> None:
        first, before, cursor = self.kinds()
        assert (first, before) == ([f"kind{number}" for number in range(200)], None)
        second, _, cursor = self.kinds(after=cursor)
        third, before, end = self.kinds(after=cursor)
        assert (second[0], third[0], third[-1], end) == ("kind200", "kind400", "kind449", None)
        assert self.kinds(before=before)[0] == second

    def test_a_page_is_as_cheap_at_the_end_as_at_the_start(self) -> None:
        late = Event.objects.order_by("pk")[400].pk
        with self.assertNumQueries(6):
            self.client.get(self.url)
        with self.assertNumQueries(6):
            self.client.get(self.url, {"after": late})

    def test_the_rows_alone_have_no_frame(self) -> None:
        content = self.client.get(self.url, {"rows": ""}).content.decode()
        assert "kind7" in content
        assert "<html" not in content

    def test_a_cursor_that_is_none_shows_the_start(self) -> None:
        for cursor in ("", "-1", "x", "9" * 30):
            assert self.kinds(after=cursor)[0][0] == "kind0"

    def test_events_of_other_calls_are_not_shown(self) -> None:
        make_event(make_call(), "theirs")
        last = Event.objects.filter(call=self.call).last()
        assert self.kinds(after=last.pk)[0] == []
