"""Agents and the keys that let the platform in to them, as operators edit them.
A call never reads these rows: roster.py turns them into values first."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from agents.responders import RESPONDERS
from agents.settings import FALLBACK, GREETING, AgentSettings

# The field of the form beside which a violated constraint is shown.
MENDS = {
    "agent_platform_id_once": "platform_agent_id",
    "agent_default_is_active": "is_active",
    "agent_deadlines_positive": "first_text_s",
}

UNIT_INTERVAL = [MinValueValidator(0), MaxValueValidator(1)]


def responder_choices() -> list[tuple[str, str]]:
    """The kinds of the registry, for forms."""
    return [(kind, responder.label) for kind, responder in RESPONDERS.items()]


class AgentQuerySet(models.QuerySet["Agent"]):
    def active(self) -> AgentQuerySet:
        return self.filter(is_active=True)

    def default(self) -> AgentQuerySet:
        return self.active().filter(is_default=True)


class Agent(models.Model):
    """Who answers a call, in which words and how fast."""

    name = models.CharField(max_length=100, unique=True, help_text="How you call this agent here.")
    slug = models.SlugField(
        max_length=100,
        unique=True,
        help_text="Short name for links and exports: letters, digits and dashes.",
    )
    is_active = models.BooleanField(
        "active",
        default=True,
        help_text="Calls for an agent that is not active are refused; live calls go on.",
    )
    is_default = models.BooleanField(
        "default agent",
        default=False,
        help_text="Answers calls whose URL names no agent. There can be one; choosing this one replaces the other.",
    )
    platform_agent_id = models.CharField(
        "platform's agent id",
        max_length=255,
        blank=True,
        default="",
        help_text="The agent's id on the platform (agent_…). Calls on the URL without a key are given to the "
        "agent whose id the platform names.",
    )

    greeting = models.TextField(
        default=GREETING,
        blank=True,
        help_text="The first words of every call. {{customer_name}} is replaced by the call's variable of that "
        "name; the greeting then waits up to 2 seconds for the platform to send it.",
    )
    greeting_without_variables = models.TextField(
        blank=True,
        default="",
        help_text="Said instead when a variable of the greeting is missing. Empty: the greeting without its variables.",
    )
    speak_first = models.BooleanField(
        default=True, help_text="Off: the agent says nothing until the caller has spoken."
    )
    fallback_text = models.TextField(
        default=FALLBACK,
        help_text="Said whenever the responder fails, is late or has nothing to say, so that the caller never "
        "hears silence.",
    )
    reminder_text = models.TextField(
        blank=True,
        default="",
        help_text="Said when the caller has gone quiet. Empty: the responder decides (fixed text: the fallback text).",
    )
    hold_line = models.TextField(
        blank=True,
        default="",
        help_text="Said once when the answer takes longer than the hold time below, for example “One moment, "
        "please.” Empty: nothing is said until the answer comes.",
    )

    responder = models.CharField(max_length=40, default="fixed", choices=responder_choices)
    responder_settings = models.JSONField(
        default=dict, blank=True, help_text="Settings of the responder, as a JSON object."
    )

    hold_after_s = models.FloatField(
        "hold line after",
        default=2.0,
        validators=[MinValueValidator(0.2), MaxValueValidator(60)],
        help_text="Seconds without a first word after which the hold line is said.",
    )
    first_text_s = models.FloatField(
        "first words within",
        default=4.0,
        validators=[MinValueValidator(0.2), MaxValueValidator(60)],
        help_text="Seconds the responder has for its first words; then the fallback text is said.",
    )
    reply_s = models.FloatField(
        "whole reply within",
        default=30.0,
        validators=[MinValueValidator(1), MaxValueValidator(600)],
        help_text="Seconds for the whole reply; what is missing by then is replaced by the fallback text.",
    )

    auto_reconnect = models.BooleanField(
        "keepalive and reconnect",
        default=True,
        help_text="The platform checks the connection every 2 seconds and dials again when it is lost. Leave on, "
        "unless you need exactly the frames of the platform's first guide.",
    )
    call_details = models.BooleanField(
        default=True,
        help_text="The platform sends numbers, variables and metadata of the call. Needed for names in the greeting.",
    )
    transcript_with_tool_calls = models.BooleanField(
        "transcript with tools and keys",
        default=False,
        help_text="The platform adds tool calls and pressed keys to the transcript. Doubles the size of frames.",
    )
    responsiveness = models.FloatField(
        null=True,
        blank=True,
        validators=UNIT_INTERVAL,
        help_text="0 to 1; lower waits longer before answering. Empty: as set on the platform.",
    )
    interruption_sensitivity = models.FloatField(
        null=True,
        blank=True,
        validators=UNIT_INTERVAL,
        help_text="0 to 1; lower is harder to interrupt, 0 cannot be interrupted. Empty: as set on the platform.",
    )
    reminder_trigger_ms = models.PositiveIntegerField(
        "reminder after",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Milliseconds of silence before the caller is reminded. Empty: as set on the platform.",
    )
    reminder_max_count = models.PositiveIntegerField(
        "reminders at most",
        null=True,
        blank=True,
        help_text="How often in a row; 0 switches reminders off. Empty: as set on the platform.",
    )

    max_calls = models.PositiveIntegerField(
        "calls at once",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="More simultaneous calls are refused. Empty: no limit but the server's.",
    )

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = AgentQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["is_default"], condition=Q(is_default=True), name="agent_one_default"),
            models.UniqueConstraint(
                fields=["platform_agent_id"],
                condition=~Q(platform_agent_id=""),
                name="agent_platform_id_once",
                violation_error_message="Another agent already answers for this platform id.",
            ),
            models.CheckConstraint(
                condition=Q(is_default=False) | Q(is_active=True),
                name="agent_default_is_active",
                violation_error_message="The default agent has to be active; make another one the default first.",
            ),
            models.CheckConstraint(
                condition=Q(first_text_s__gt=0) & Q(reply_s__gt=0) & Q(hold_after_s__gt=0),
                name="agent_deadlines_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """A new default takes the place of the old one, in one transaction."""
        with transaction.atomic():
            if self.is_default:
                Agent.objects.exclude(pk=self.pk).filter(is_default=True).update(
                    is_default=False, updated_at=timezone.now()
                )
            super().save(*args, **kwargs)

    def get_absolute_url(self) -> str:
        return reverse("admin:agents_agent_change", args=[self.pk])

    def clean(self) -> None:
        errors: dict[str, str] = {}
        if self.speak_first and not self.greeting.strip():
            errors["greeting"] = "Write the first words, or switch “speak first” off."
        if not self.fallback_text.strip():
            errors["fallback_text"] = "Without a fallback text a failing responder means silence."
        if self.first_text_s and self.reply_s and self.first_text_s > self.reply_s:
            errors["first_text_s"] = "The first words cannot be due later than the whole reply."
        errors.update(self._responder_errors())
        if errors:
            raise ValidationError(errors)

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        """Beside the field that can mend it. “One default” is left to `save`, which moves the mark."""
        errors: dict[str, list[ValidationError]] = {}
        for constraint in self._meta.constraints:
            if constraint.name == "agent_one_default":
                continue
            try:
                constraint.validate(Agent, self, exclude=set(exclude or ()))
            except ValidationError as error:
                errors.setdefault(MENDS.get(constraint.name, NON_FIELD_ERRORS), []).append(error)
        if errors:
            raise ValidationError(errors)

    def _responder_errors(self) -> dict[str, str]:
        responder = RESPONDERS.get(self.responder)
        if responder is None:
            return {"responder": f"There is no responder “{self.responder}” on this server."}
        if not isinstance(self.responder_settings, dict):
            return {"responder_settings": "Write a JSON object, for example {}."}
        found = responder.check(self.responder_settings)
        return {"responder_settings": " ".join(found.values())} if found else {}

    def as_settings(self) -> AgentSettings:
        """This agent as the value a call carries with it."""
        given = {name: getattr(self, name) for name in AgentSettings.__struct_fields__ if name != "pk"}
        return AgentSettings(pk=self.pk, **given)

    def duplicate(self) -> Agent:
        """An inactive copy under a free name, without keys, platform id and default mark."""
        copy = Agent.objects.get(pk=self.pk)
        copy.pk, copy._state.adding = None, True
        copy.name, copy.slug = _free_name(self)
        copy.is_active, copy.is_default, copy.platform_agent_id = False, False, ""
        copy.save()
        return copy


def _free_name(agent: Agent) -> tuple[str, str]:
    taken = set(Agent.objects.values_list("name", flat=True))
    slugs = set(Agent.objects.values_list("slug", flat=True))
    number = 1
    while True:
        name, slug = f"{agent.name[:85]} (copy {number})", f"{agent.slug[:85]}-copy-{number}"
        if name not in taken and slug not in slugs:
            return name, slug
        number += 1


class ConnectionKeyQuerySet(models.QuerySet["ConnectionKey"]):
    def valid(self) -> ConnectionKeyQuerySet:
        return self.filter(revoked_at=None)


class ConnectionKey(models.Model):
    """The unguessable part of an agent's URL. Only its digest is kept, so it can be shown only once.

    256-bit random secrets need no slow hash: there is nothing to guess from a stolen digest.
    """

    agent = models.ForeignKey(Agent, models.CASCADE, related_name="keys")
    label = models.CharField(
        max_length=100, blank=True, default="", help_text="What it is for, for example “production”."
    )
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, editable=False, help_text="Empty: never.")
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="Empty: the key is valid.")

    objects = ConnectionKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.prefix}…"

    @classmethod
    def create(cls, agent: Agent, label: str = "") -> tuple[ConnectionKey, str]:
        """A new key and its full text, which cannot be had again."""
        prefix, secret = f"k{secrets.token_hex(4)}", secrets.token_urlsafe(32)
        text = f"{prefix}-{secret}"
        return cls.objects.create(agent=agent, label=label, prefix=prefix, digest=key_digest(text)), text

    def revoke(self) -> bool:
        """Stops the key from opening calls; False when it was revoked before."""
        changed = ConnectionKey.objects.valid().filter(pk=self.pk).update(revoked_at=timezone.now())
        self.refresh_from_db(fields=["revoked_at"])
        return bool(changed)


def key_digest(text: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(text.encode()).hexdigest()
