"""Agents in the console: edited without surprises, connected by an address to paste, copied on request."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.contrib.admin.models import LogEntry
from django.forms.models import model_to_dict
from django.test import Client, TestCase, override_settings
from django.urls import reverse

from agents.models import Agent, ConnectionKey, key_digest
from tests.cast import make_agent, staff

OPEN = override_settings(PUBLIC_URL="https://voice.example.com", LLM_OPEN_URL=True)
CLOSED = override_settings(PUBLIC_URL="https://voice.example.com", LLM_OPEN_URL=False)


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:agents_agent_{name}", args=args)


class AgentPages(TestCase):
    def setUp(self) -> None:
        self.agent = make_agent(name="Front desk", slug="front-desk")
        self.log_in("view_agent", "change_agent", "add_agent")

    def log_in(self, *permissions: str) -> None:
        self.user = staff(*permissions)
        self.client.force_login(self.user)

    def page(self, agent: Agent | None = None) -> str:
        return unescape(self.client.get(url("change", (agent or self.agent).pk)).content.decode())

    def form(self, **changes: Any) -> dict[str, Any]:
        """What the form of the agent sends when only these fields were changed."""
        response = self.client.get(url("change", self.agent.pk))
        fields = response.context["adminform"].form
        given = {name: fields[name].value() for name in fields.fields} | changes
        # Django asks a field with a callable default for its first value as well
        given["initial-responder_settings"] = fields["responder_settings"].value()
        return {name: value for name, value in given.items() if value not in (None, False)}

    def save(self, **changes: Any) -> Any:
        return self.client.post(url("change", self.agent.pk), self.form(**changes))

    def errors(self, **changes: Any) -> dict[str, list[str]]:
        response = self.save(**changes)
        assert response.status_code == 200, "the form was accepted"
        return {name: list(found) for name, found in response.context["adminform"].form.errors.items()}


class TestTheForm(AgentPages):
    def test_it_saves(self) -> None:
        response = self.save(greeting="Good morning.")
        self.assertRedirects(response, url("changelist"), fetch_redirect_response=False)
        self.agent.refresh_from_db()
        assert self.agent.greeting == "Good morning."

    def test_fieldsets_come_in_the_order_an_operator_thinks(self) -> None:
        headings = re.findall(r"<h2[^>]*>\s*(.*?)\s*</h2>", self.page(), re.S)
        wanted = [
            "Who answers",
            "Connect",
            "What the caller hears",
            "Responder",
            "Timing",
            "Platform settings",
            "Limits",
        ]
        assert [heading for heading in headings if heading in wanted] == wanted

    def test_every_field_of_the_agent_is_in_the_form_with_help(self) -> None:
        form = self.client.get(url("change", self.agent.pk)).context["adminform"].form
        own = {field.name for field in Agent._meta.fields if field.editable and not field.primary_key}
        assert set(form.fields) - {"version"} == own
        assert [name for name in own if not form.fields[name].help_text] == []

    def test_a_violated_constraint_is_shown_beside_its_field(self) -> None:
        make_agent(platform_agent_id="agent_1")
        assert self.errors(platform_agent_id="agent_1") == {
            "platform_agent_id": ["Another agent already answers for this platform id."]
        }
        assert self.errors(is_active=False, is_default=True) == {
            "is_active": ["The default agent has to be active; make another one the default first."]
        }

    def test_a_rule_of_the_model_is_shown_beside_its_field(self) -> None:
        assert self.errors(first_text_s=40) == {
            "first_text_s": ["The first words cannot be due later than the whole reply."]
        }

    def test_choosing_a_default_replaces_the_other(self) -> None:
        other = make_agent(is_default=True)
        assert self.save(is_default=True).status_code == 302
        assert list(Agent.objects.default()) == [self.agent]
        other.refresh_from_db()
        assert not other.is_default

    def test_it_needs_permission(self) -> None:
        given = self.form(greeting="Taken over.")
        self.log_in("view_agent")
        assert self.client.post(url("change", self.agent.pk), given).status_code == 403

    def test_a_hostile_name_is_text(self) -> None:
        Agent.objects.filter(pk=self.agent.pk).update(name="<script>alert(1)</script>", platform_agent_id='"><b>')
        for name in ("change", "new_key", "duplicate"):
            content = self.client.get(url(name, self.agent.pk)).content.decode()
            assert "<script>alert(1)" not in content
            assert '"><b>' not in content

    def test_the_list_takes_the_same_queries_for_one_agent_and_for_many(self) -> None:
        with self.assertNumQueries(6):
            self.client.get(url("changelist"))
        for _ in range(20):
            ConnectionKey.create(make_agent())
        with self.assertNumQueries(6):
            self.client.get(url("changelist"))


class TestAnEditThatWasOvertaken(AgentPages):
    def test_it_is_refused_and_nothing_is_lost(self) -> None:
        mine = self.form(greeting="Mine.")
        assert self.save(greeting="Theirs.").status_code == 302
        response = self.client.post(url("change", self.agent.pk), mine)
        self.agent.refresh_from_db()
        assert self.agent.greeting == "Theirs."
        assert response.context["adminform"].form["greeting"].value() == "Mine."
        self.assertContains(response, f"{self.user} (Changed Greeting.) saved this agent while you were editing it")

    def test_saving_again_replaces_it_knowingly(self) -> None:
        mine = self.form(greeting="Mine.")
        self.save(greeting="Theirs.")
        refused = self.client.post(url("change", self.agent.pk), mine)
        mine["version"] = refused.context["adminform"].form["version"].value()
        assert self.client.post(url("change", self.agent.pk), mine).status_code == 302
        self.agent.refresh_from_db()
        assert self.agent.greeting == "Mine."

    def test_the_old_default_notices_that_it_was_replaced(self) -> None:
        Agent.objects.filter(pk=self.agent.pk).update(is_default=True)
        mine = self.form(greeting="Mine.")
        make_agent(is_default=True)
        assert self.client.post(url("change", self.agent.pk), mine).status_code == 200


class TestTheAddressToPaste(AgentPages):
    @OPEN
    def test_the_default_agent_shows_the_url_without_a_key(self) -> None:
        self.agent.is_default = True
        self.agent.save()
        assert 'data-copy="wss://voice.example.com/llm-websocket/"' in self.page()

    @OPEN
    def test_another_agent_does_not(self) -> None:
        assert "data-copy" not in self.page()

    @OPEN
    def test_an_agent_with_a_platform_id_does(self) -> None:
        Agent.objects.filter(pk=self.agent.pk).update(platform_agent_id="agent_1")
        assert 'data-copy="wss://voice.example.com/llm-websocket/"' in self.page()

    @CLOSED
    def test_a_closed_url_is_not_offered(self) -> None:
        self.agent.is_default = True
        self.agent.save()
        page = self.page()
        assert "data-copy" not in page
        assert "The URL without a key is closed on this server" in page

    @override_settings(PUBLIC_URL="", LLM_OPEN_URL=True)
    def test_without_a_public_url_it_is_the_address_of_this_page(self) -> None:
        Agent.objects.filter(pk=self.agent.pk).update(is_default=True)
        assert 'data-copy="ws://testserver/llm-websocket/"' in self.page()
        secure = self.client.get(url("change", self.agent.pk), secure=True).content.decode()
        assert 'data-copy="wss://testserver/llm-websocket/"' in secure

    @override_settings(PUBLIC_URL="http://127.0.0.1:8000/", LLM_OPEN_URL=True)
    def test_a_plain_public_url_stays_plain(self) -> None:
        Agent.objects.filter(pk=self.agent.pk).update(is_default=True)
        assert 'data-copy="ws://127.0.0.1:8000/llm-websocket/"' in self.page()

    def test_it_warns_while_reconnecting_is_off(self) -> None:
        assert "Keepalive and reconnect is off" not in self.page()
        assert "Keepalive and reconnect is off" in self.page(make_agent(auto_reconnect=False))


@CLOSED
class TestKeys(AgentPages):
    def create(self, **label: str) -> Any:
        return self.client.post(url("new_key", self.agent.pk), label or {"label": "production"})

    @staticmethod
    def shown(response: Any) -> str:
        """The key in the URL that a page offers for copying."""
        return re.findall(r'data-copy="wss://voice.example.com/llm-websocket/([^"]+)"', response.content.decode())[0]

    def test_its_full_text_is_shown_once(self) -> None:
        response = self.create()
        key = self.agent.keys.get()
        text = self.shown(response)
        assert (key.label, key.digest) == ("production", key_digest(text))
        assert "no-store" in response["Cache-Control"]
        assert key.prefix in self.page()
        assert text not in self.page()

    def test_its_full_text_is_kept_nowhere(self) -> None:
        text = self.shown(self.create())
        kept = [
            str(dict(self.client.session)),
            str(self.client.cookies),
            *LogEntry.objects.values_list("change_message", flat=True),
        ]
        assert [place for place in kept if text in place] == []
        assert [value for value in model_to_dict(self.agent.keys.get()).values() if value == text] == []

    def test_who_made_it_is_on_record(self) -> None:
        self.create()
        entry = LogEntry.objects.get()
        assert (entry.user, entry.change_message) == (self.user, f"Created key {self.agent.keys.get()}")

    def test_a_rotated_key_stays_valid_beside_its_successor(self) -> None:
        old, _ = ConnectionKey.create(self.agent, "production")
        form = self.client.get(url("rotate_key", self.agent.pk, old.pk)).context["form"]
        self.shown(self.client.post(url("rotate_key", self.agent.pk, old.pk), {"label": form["label"].value()}))
        assert [key.label for key in self.agent.keys.valid()] == ["production", "production"]

    def test_a_revoked_key_is_no_longer_valid(self) -> None:
        key, _ = ConnectionKey.create(self.agent)
        response = self.client.post(url("revoke_key", self.agent.pk, key.pk))
        self.assertRedirects(response, url("change", self.agent.pk), fetch_redirect_response=False)
        assert list(self.agent.keys.valid()) == []
        assert self.client.post(url("revoke_key", self.agent.pk, key.pk)).status_code == 404

    def test_a_link_alone_changes_nothing(self) -> None:
        key, _ = ConnectionKey.create(self.agent)
        for page in (
            url("new_key", self.agent.pk),
            url("rotate_key", self.agent.pk, key.pk),
            url("revoke_key", self.agent.pk, key.pk),
        ):
            assert self.client.get(page).status_code == 200
        assert list(self.agent.keys.valid()) == [key]

    def test_a_key_of_another_agent_is_not_found(self) -> None:
        key, _ = ConnectionKey.create(make_agent())
        assert self.client.post(url("revoke_key", self.agent.pk, key.pk)).status_code == 404
        assert self.client.post(url("rotate_key", self.agent.pk, key.pk)).status_code == 404

    def test_it_needs_permission_to_change_agents(self) -> None:
        key, _ = ConnectionKey.create(self.agent)
        self.log_in("view_agent")
        for page in (
            url("new_key", self.agent.pk),
            url("rotate_key", self.agent.pk, key.pk),
            url("revoke_key", self.agent.pk, key.pk),
        ):
            assert (self.client.get(page).status_code, self.client.post(page).status_code) == (403, 403)
        assert list(self.agent.keys.valid()) == [key]
        assert "Rotate" not in self.page()

    def test_a_forged_request_is_refused(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(self.user)
        assert strict.post(url("new_key", self.agent.pk)).status_code == 403
        assert self.agent.keys.count() == 0


class TestDuplicate(AgentPages):
    def test_it_opens_the_copy(self) -> None:
        response = self.client.post(url("duplicate", self.agent.pk))
        copy = Agent.objects.exclude(pk=self.agent.pk).get()
        self.assertRedirects(response, url("change", copy.pk), fetch_redirect_response=False)
        assert (copy.name, copy.is_active) == ("Front desk (copy 1)", False)

    def test_the_link_asks_first(self) -> None:
        self.assertContains(self.client.get(url("duplicate", self.agent.pk)), "Make a copy of")
        assert Agent.objects.count() == 1

    def test_it_needs_permission_to_add_agents(self) -> None:
        self.log_in("view_agent", "change_agent")
        assert self.client.post(url("duplicate", self.agent.pk)).status_code == 403
        assert Agent.objects.count() == 1
