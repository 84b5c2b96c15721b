"""How the list of calls is paged and filtered: never by counting, because the table grows without end."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date
from unfold.contrib.filters.admin import CheckboxFilter, RangeDateFilter

from agents.console import ChangeList
from calls.flags import FLAGS
from calls.models import Call


class Uncounted(Paginator):  # type: ignore[type-arg]  # not generic at run time
    """Tells unfold which template draws the links; the pages themselves are cut by `CallList`."""

    template_name = "admin/calls/call/pagination.html"


class CallList(ChangeList):
    """A page of calls: one query for a row more than fits, which tells whether there is a next page."""

    def get_results(self, request: HttpRequest) -> None:
        self.page_num = max(self.page_num, 1)
        self.offset = (self.page_num - 1) * self.list_per_page
        found = list(self.queryset[self.offset : self.offset + self.list_per_page + 1])
        self.has_next = len(found) > self.list_per_page
        self.result_list = found[: self.list_per_page]
        # the frame around the list prints these two only where they differ
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_all = self.can_show_all = self.multi_page = False
        self.paginator = Uncounted(self.result_list, self.list_per_page)

    @property
    def last(self) -> int:
        """The position of the page's last row, counted from the newest call."""
        return self.offset + len(self.result_list)

    @property
    def first(self) -> int:
        return self.offset + 1


class StartedFilter(RangeDateFilter):  # type: ignore[misc]  # unfold is untyped
    """From the beginning of one day to the end of another; unfold's own leaves the last day out."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        first, last = self._day("from", time.min), self._day("to", time.max)
        if first:
            queryset = queryset.filter(started_at__gte=first)
        return queryset.filter(started_at__lte=last) if last else queryset

    def _day(self, end: str, clock: time) -> datetime | None:
        try:
            day = parse_date(self.used_parameters.get(f"started_at_{end}") or "")
        except ValueError:
            return None
        return timezone.make_aware(datetime.combine(day, clock)) if day else None


class FlagFilter(CheckboxFilter):  # type: ignore[misc]  # unfold is untyped
    """Calls with any of the ticked flags."""

    title = "what happened"
    parameter_name = "flag"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(flag.name, flag.label) for flag in FLAGS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        wanted = self.value() or []
        either = Q()
        for flag in FLAGS:
            if flag.name in wanted:
                either |= flag.where
        return queryset.filter(either)
