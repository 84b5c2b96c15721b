"""The pages on which an agent's keys are made, rotated and revoked. A key's full text is in one answer
and nowhere else: not in a message, a log or the session."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from unfold.widgets import UnfoldAdminTextInputWidget

from agents.connect import socket_url
from agents.console import ModelAdmin, ModelForm
from agents.models import Agent, ConnectionKey


class KeyForm(ModelForm[ConnectionKey]):
    class Meta:
        model = ConnectionKey
        fields = ["label"]
        widgets = {"label": UnfoldAdminTextInputWidget}


class KeyPages(ModelAdmin[Agent]):
    """Three pages under an agent. Each shows a form first and acts on POST alone."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/keys/new/", view(self.new_key_view), name="agents_agent_new_key"),
            path("<int:pk>/keys/<int:key>/rotate/", view(self.rotate_key_view), name="agents_agent_rotate_key"),
            path("<int:pk>/keys/<int:key>/revoke/", view(self.revoke_key_view), name="agents_agent_revoke_key"),
            *super().get_urls(),
        ]

    def new_key_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """One more key, beside those there are."""
        return self._make_key(request, self._agent(request, pk), old=None)

    def rotate_key_view(self, request: HttpRequest, pk: int, key: int) -> HttpResponse:
        """A successor for a key that stays valid until it is revoked, so that no call is lost."""
        agent = self._agent(request, pk)
        return self._make_key(request, agent, old=self._valid_key(agent, key))

    def revoke_key_view(self, request: HttpRequest, pk: int, key: int) -> HttpResponse:
        """The end of a key; calls that are under way go on."""
        agent = self._agent(request, pk)
        found = self._valid_key(agent, key)
        if request.method != "POST":
            others = agent.keys.valid().exclude(pk=found.pk).count()
            context = {"key": found, "others": others, "title": f"Revoke key {found}"}
            return self._page(request, "key_revoke", agent, context)
        if found.revoke():
            self.log_change(request, agent, f"Revoked key {found}")
        messages.success(request, f"Key {found} is revoked: it opens no more calls.")
        return redirect(agent)

    def _make_key(self, request: HttpRequest, agent: Agent, *, old: ConnectionKey | None) -> HttpResponse:
        form = KeyForm(request.POST or None, initial={"label": old.label if old else ""})
        if request.method != "POST" or not form.is_valid():
            title = f"Rotate key {old}" if old else "Create a key"
            return self._page(request, "key_new", agent, {"form": form, "old": old, "title": title})
        key, text = ConnectionKey.create(agent, form.cleaned_data["label"])
        self.log_change(request, agent, f"Created key {key}" + (f" to follow {old}" if old else ""))
        shown = {"key": key, "old": old, "url": socket_url(request, text), "title": f"Key {key}"}
        response = self._page(request, "key_shown", agent, shown)
        response["Cache-Control"] = "no-store"
        return response

    def _agent(self, request: HttpRequest, pk: int) -> Agent:
        agent = self.get_object(request, str(pk))
        if not self.has_change_permission(request, agent):
            raise PermissionDenied
        if agent is None:
            raise Http404("There is no such agent.")
        return agent

    @staticmethod
    def _valid_key(agent: Agent, pk: int) -> ConnectionKey:
        key = agent.keys.valid().filter(pk=pk).first()
        if key is None:
            raise Http404("This agent has no such key, or it has been revoked.")
        return key

    def _page(self, request: HttpRequest, name: str, agent: Agent, context: dict[str, Any]) -> HttpResponse:
        """One of our own pages, inside the console's frame."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, "original": agent, "agent": agent}
        return TemplateResponse(request, f"admin/agents/agent/{name}.html", {**frame, **context})
