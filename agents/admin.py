"""The agents in the console: who answers, where the platform dials in, and what a caller hears."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from agents.agent_form import AgentForm
from agents.connect import socket_url
from agents.console import action, display
from agents.keys_admin import KeyPages
from agents.models import Agent


@admin.register(Agent)
class AgentAdmin(KeyPages):
    """The fieldsets come in the order an operator thinks; "Connect" stands after the first (change_form.html)."""

    form = AgentForm
    list_display = [
        "name", "active_label", "default_label", "responder_label", "valid_keys", "platform_agent_id",
    ]  # fmt: skip
    list_filter = ["is_active"]
    search_fields = ["name", "slug", "platform_agent_id"]
    search_help_text = "Name, short name or platform's id"
    show_full_result_count = False
    prepopulated_fields = {"slug": ["name"]}
    actions_detail = ["duplicate"]
    warn_unsaved_form = True
    fieldsets = [
        ("Who answers", {"fields": ["name", "slug", "is_active", "is_default", "platform_agent_id"]}),
        (
            "What the caller hears",
            {
                "fields": [
                    "greeting", "greeting_without_variables", "speak_first", "fallback_text", "reminder_text",
                    "hold_line",
                ]
            },
        ),
        ("Responder", {"fields": ["responder", "responder_settings"]}),
        ("Timing", {"fields": ["hold_after_s", "first_text_s", "reply_s"]}),
        (
            "Platform settings",
            {
                "fields": [
                    "auto_reconnect", "call_details", "transcript_with_tool_calls", "responsiveness",
                    "interruption_sensitivity", "reminder_trigger_ms", "reminder_max_count",
                ]
            },
        ),
        ("Limits", {"fields": ["max_calls"]}),
    ]  # fmt: skip

    # ------------------------------------------------------------------ the list

    def get_queryset(self, request: HttpRequest) -> QuerySet[Agent]:
        return super().get_queryset(request).annotate(key_count=Count("keys", Q(keys__revoked_at=None)))

    @display(description="Active", ordering="is_active", label={"Active": "success", "Off": "warning"})
    def active_label(self, agent: Agent) -> str:
        return "Active" if agent.is_active else "Off"

    @display(description="Default", ordering="is_default", label={"Default": "info"})
    def default_label(self, agent: Agent) -> str:
        return "Default" if agent.is_default else ""

    @display(description="Responder", ordering="responder")
    def responder_label(self, agent: Agent) -> str:
        return agent.get_responder_display()

    @display(description="Valid keys", ordering="key_count")
    def valid_keys(self, agent: Agent) -> int:
        return int(getattr(agent, "key_count", 0))

    # ------------------------------------------------------------------ one agent

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        agent = self.get_object(request, object_id)
        connect = {"connect": self._connect(request, agent)} if agent else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **connect})

    def _connect(self, request: HttpRequest, agent: Agent) -> dict[str, Any]:
        """What the panel "Connect" shows: addresses, keys, and what stands in the way of real calls."""
        answers_openly = agent.is_default or bool(agent.platform_agent_id)
        return {
            "open_url": socket_url(request) if answers_openly and settings.LLM_OPEN_URL else "",
            "is_closed": answers_openly and not settings.LLM_OPEN_URL,
            "key_url": socket_url(request),
            "keys": sorted(agent.keys.all(), key=lambda key: key.revoked_at is not None),
            "may_change": self.has_change_permission(request, agent),
            "agent": agent,
        }

    def has_duplicate_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.has_add_permission(request)

    @action(description="Duplicate", url_path="duplicate", permissions=["duplicate"], icon="content_copy")
    def duplicate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A copy, after a question: the link to this page is a GET and must not make one."""
        agent = self.get_object(request, object_id)
        if agent is None or not self.has_view_permission(request, agent):
            raise Http404("There is no such agent.")
        if request.method != "POST":
            return self._page(request, "duplicate", agent, {"title": f"Duplicate {agent}"})
        copy = agent.duplicate()
        self.log_addition(request, copy, f"Duplicated from {agent}")
        messages.success(request, f"This is the copy of {agent}. It is not active yet and has no key.")
        return redirect(copy)
