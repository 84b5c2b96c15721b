"""The calls in the console: a log that is read and searched, not edited; old calls are pruned."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from unfold.contrib.filters.admin import BooleanRadioFilter, ChoicesDropdownFilter, RelatedDropdownFilter
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from agents.console import ModelAdmin, action, display
from calls import words
from calls.call_list import CallList, FlagFilter, StartedFilter
from calls.call_page import call_page
from calls.events import events_page
from calls.flags import badges
from calls.models import Call, CallQuerySet

# A page must answer; what is left after this long is pruned by asking again, or by the command.
PRUNE_SECONDS = 20
# How many calls the command palette offers.
PALETTE_SHOWS = 20
# Beyond this many the question before pruning says "more than".
PRUNE_COUNTED = 10_000


class PruneForm(forms.Form):
    days = forms.IntegerField(
        label="Days to keep",
        min_value=1,
        max_value=36_500,
        initial=90,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Calls that ended longer ago than this are deleted. Live calls never are.",
    )


@admin.register(Call)
class CallAdmin(ModelAdmin[Call]):
    list_display = ["call", "agent", "state", "started", "duration", "turns", "median_reply", "flags"]
    list_filter = [
        ("agent", RelatedDropdownFilter),
        ("status", ChoicesDropdownFilter),
        ("started_at", StartedFilter),
        ("is_test", BooleanRadioFilter),
        FlagFilter,
    ]
    list_filter_submit = True
    list_fullwidth = True
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    search_fields = ["call_id"]  # shows the box; get_search_results says what is found
    search_help_text = "Call id, number, or words said"
    actions = None
    actions_list = ["prune"]

    class Media:
        css = {"all": ["switchboard/console.css"]}

    # ------------------------------------------------------------------ a log is not edited

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Call | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Call | None = None) -> bool:
        return False

    # ------------------------------------------------------------------ the list

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[CallList]:
        return CallList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Call]:
        return Call.objects.for_list()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Call], search_term: str
    ) -> tuple[QuerySet[Call], bool]:
        term = search_term.strip()
        found = cast("CallQuerySet", queryset).matching(term) if term else queryset
        # the command palette reads all that is found, however much that is
        from_palette = request.resolver_match is not None and request.resolver_match.url_name == "search"
        return found[:PALETTE_SHOWS] if from_palette else found, False

    @display(description="Call", ordering="call_id")
    def call(self, call: Call) -> str:
        return render_to_string("admin/calls/call/cell.html", {"call": call})

    @display(description="Status", label={"Live": "success", "Ended": ""})
    def state(self, call: Call) -> str:
        return call.get_status_display()

    @display(description="Started", ordering="started_at")
    def started(self, call: Call) -> str:
        return timezone.localtime(call.started_at).strftime("%Y-%m-%d %H:%M:%S")

    # calls without a value count as lowest, on every database

    @display(description="Duration", ordering=Coalesce(F("duration_s"), Value(-1.0)))
    def duration(self, call: Call) -> str:
        return words.seconds(call.duration_s)

    @display(description="Turns", ordering="turn_count")
    def turns(self, call: Call) -> int:
        return call.turn_count

    @display(description="Median reply", ordering=Coalesce(F("reply_ms_median"), Value(-1)))
    def median_reply(self, call: Call) -> str:
        return words.ms(call.reply_ms_median)

    @display(description="Flags")
    def flags(self, call: Call) -> str:
        return render_to_string("admin/calls/call/flags.html", {"badges": badges(call)})

    # ------------------------------------------------------------------ one call

    def get_urls(self) -> list[URLPattern]:
        events = path("<int:pk>/events/", self.admin_site.admin_view(self.events_view), name="calls_call_events")
        return [events, *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page of a call: no form, because there is nothing to fill in."""
        call = self._call(request, object_id)
        if call is None:
            return self._missing(request, object_id)
        return self._page(request, "page", {"original": call, "title": str(call), **call_page(call)})

    def events_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The raw events of a call, two hundred at a time: a page, or with ?rows only its rows."""
        call = self._call(request, str(pk))
        if call is None:
            return self._missing(request, str(pk))
        context = {"original": call, "title": "Raw events", **events_page(call, request.GET)}
        return self._page(request, "event_rows" if "rows" in request.GET else "events", context)

    def _call(self, request: HttpRequest, object_id: str) -> Call | None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if not object_id.isdecimal():
            return None
        return Call.objects.select_related("agent", "key").filter(pk=object_id).first()

    def _missing(self, request: HttpRequest, object_id: str) -> HttpResponse:
        messages.warning(request, f"There is no call “{object_id}”; it may have been pruned.")
        return redirect("admin:calls_call_changelist")

    # ------------------------------------------------------------------ pruning

    # unfold takes the permission's own name as well, but then looks it up while `migrate` has yet to make its table
    def has_prune_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("calls.prune_call")

    @action(description="Prune old calls", url_path="prune", permissions=["prune"], icon="auto_delete")
    def prune(self, request: HttpRequest) -> HttpResponse:
        """Asks how many days to keep, says how many calls that costs, and deletes them on POST."""
        form = PruneForm(request.POST or request.GET or None)
        if not form.is_valid():
            return self._page(request, "prune", {"title": "Prune old calls", "form": form})
        before = timezone.now() - timedelta(days=form.cleaned_data["days"])
        if request.method != "POST":
            return self._page(request, "prune", {"title": "Prune old calls", "form": form, **_doomed(before)})
        return self._prune(request, before, form.cleaned_data["days"])

    def _prune(self, request: HttpRequest, before: Any, days: int) -> HttpResponse:
        deleted, deadline = 0, time.monotonic() + PRUNE_SECONDS
        for count in Call.objects.prune(before):
            deleted += count
            if time.monotonic() > deadline:
                messages.warning(request, f"Deleted {deleted:,} calls so far. Ask again to go on, or run the command.")
                return redirect(f"{request.path}?days={days}")
        messages.success(request, f"Deleted {deleted:,} calls that ended more than {days} days ago.")
        return redirect("admin:calls_call_changelist")

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        """One of our own pages, inside the console's frame."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts}
        return TemplateResponse(request, f"admin/calls/call/{name}.html", {**frame, **context})


def _doomed(before: Any) -> dict[str, Any]:
    """How many calls the pruning would delete, counted no further than is worth knowing."""
    count = Call.objects.ended_before(before).order_by()[: PRUNE_COUNTED + 1].count()
    return {"count": min(count, PRUNE_COUNTED), "more": count > PRUNE_COUNTED, "before": before}
