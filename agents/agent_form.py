"""The form an agent is edited with: what the model says about it, and who saved it in the meantime."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError

from agents.console import ModelForm
from agents.models import Agent

# What is said on the phone is a sentence or two, and its field no larger.
SPOKEN = {"greeting", "greeting_without_variables", "fallback_text", "reminder_text", "hold_line"}


class Version(forms.CharField):
    """Carries the version that was read; it never counts as a change of the agent."""

    widget = forms.HiddenInput

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False


class AgentForm(ModelForm[Agent]):
    """An agent. A save that would undo somebody else's is refused once; saving again replaces it knowingly."""

    version = Version(required=False)

    class Meta:
        model = Agent
        fields = "__all__"
        help_texts = {"responder": "What thinks of the answers. Its own settings are below."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in SPOKEN & self.fields.keys():
            self.fields[name].widget.attrs["rows"] = 2
        self.fields["version"].initial = self._version(self.instance.updated_at) if self.instance.pk else ""

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        read = (cleaned or {}).get("version")
        if self.instance.pk and read:
            self._refuse_if_overtaken(read)
        return cleaned

    def _refuse_if_overtaken(self, read: str) -> None:
        row = Agent.objects.select_for_update().only("updated_at").get(pk=self.instance.pk)
        now = self._version(row.updated_at)
        if read == now:
            return
        # shown again with the newest version, so that a second save is a decision
        self.data = {**dict(self.data.items()), self.add_prefix("version"): now}
        raise ValidationError(
            f"{self._who()} saved this agent while you were editing it, so yours is not saved yet. Save again "
            "to replace that with what you see here, or open the agent afresh to see it.",
            code="overtaken",
        )

    def _who(self) -> str:
        kind = ContentType.objects.get_for_model(Agent)
        last = LogEntry.objects.filter(content_type=kind, object_id=str(self.instance.pk)).first()
        return f"{last.user} ({last.get_change_message()})" if last else "Somebody"

    @staticmethod
    def _version(moment: datetime) -> str:
        return moment.isoformat()
