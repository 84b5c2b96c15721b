"""The record of calls: what was asked, said, heard and dropped, and how long each part took.
Rows of a live call are written by recorder.py alone; everything else only reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import models, transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, ConnectionKey

# A process says every few seconds that its calls are alive; after this long it is taken for dead.
GONE_AFTER = timedelta(seconds=60)

# Calls deleted per transaction when old ones are pruned.
PRUNE_AT_ONCE = 50

# What a row of the call list shows.
LISTED = (
    *("call_id", "attempt", "agent__name", "is_test", "call_type", "direction", "from_number", "to_number"),
    *("status", "started_at", "duration_s", "close_code", "closed_by", "sockets"),
    *("turn_count", "reply_ms_median", "fallback_count", "failed_count", "timed_out_count"),
    *("superseded_count", "interrupted_count", "odd_frames", "events_dropped"),
)


class CallQuerySet(models.QuerySet["Call"]):
    def live(self) -> CallQuerySet:
        return self.filter(status=Call.Status.LIVE)

    def ended(self) -> CallQuerySet:
        return self.filter(status=Call.Status.ENDED)

    def fresh(self) -> CallQuerySet:
        """Live, and its process has said so lately."""
        return self.live().filter(seen_at__gte=timezone.now() - GONE_AFTER)

    def abandoned(self) -> CallQuerySet:
        """Marked live by a process that has fallen silent."""
        return self.live().filter(seen_at__lt=timezone.now() - GONE_AFTER)

    def matching(self, term: str) -> CallQuerySet:
        """Calls found by a part of their id, by a number in whatever way it is written, or by words said."""
        found = Q(call_id__icontains=term) | Q(pk__in=_calls_saying(term))
        if digits := _digits(term):
            found |= Q(from_number__contains=digits) | Q(to_number__contains=digits)
        return self.filter(found)

    def for_list(self) -> CallQuerySet:
        """What a row of the list shows, without the call's large JSON columns, in one query."""
        return self.select_related("agent").only(*LISTED)

    def ended_before(self, moment: datetime) -> CallQuerySet:
        """Ended calls that are older; the bound on the start lets the index of the list find them."""
        return self.ended().filter(ended_at__lt=moment, started_at__lt=moment)

    def prune(self, before: datetime) -> Iterator[int]:
        """Deletes calls that ended before a moment for good, oldest first; yields how many went each time.

        In small transactions, so that the recorder never waits long for its turn to write; whoever
        stops asking stops the pruning. A live call is never touched.
        """
        old = self.ended_before(before).order_by("started_at")
        while chunk := list(old.values_list("pk", flat=True)[:PRUNE_AT_ONCE]):
            for pk in chunk:
                Event.objects.filter(call=pk).delete()
            with transaction.atomic():
                Utterance.objects.filter(call__in=chunk).delete()
                Turn.objects.filter(call__in=chunk).delete()
                Call.objects.filter(pk__in=chunk).delete()
            yield len(chunk)


class Call(models.Model):
    """One call, however many sockets it took."""

    class Status(models.TextChoices):
        LIVE = "live", "Live"
        ENDED = "ended", "Ended"

    class ClosedBy(models.TextChoices):
        PLATFORM = "platform", "the platform"
        SERVER = "server", "this server"
        NETWORK = "network", "nobody: the connection was lost"
        SWEEPER = "sweeper", "the sweeper: its process was gone"

    call_id = models.CharField("call id", max_length=255)
    attempt = models.PositiveIntegerField(
        default=1,
        help_text="Counts the calls that came under the same id. The platform never repeats one; people who test do.",
    )
    agent = models.ForeignKey(Agent, models.SET_NULL, null=True, related_name="calls")
    key = models.ForeignKey(ConnectionKey, models.SET_NULL, null=True, related_name="calls")
    agent_settings = models.JSONField(default=dict, help_text="The agent's settings as this call started with them.")
    is_test = models.BooleanField("test call", default=False)

    call_type = models.CharField(max_length=40, blank=True, default="")
    direction = models.CharField(max_length=40, blank=True, default="")
    from_number = models.CharField("from", max_length=64, blank=True, default="")
    to_number = models.CharField("to", max_length=64, blank=True, default="")
    variables = models.JSONField(default=dict)
    metadata = models.JSONField(null=True, default=None)
    details = models.JSONField(default=dict, help_text="The platform's call object, without its access token.")

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.LIVE)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, help_text="Empty while the call is live.")
    duration_s = models.FloatField("duration", null=True, help_text="Seconds from start to end.")
    close_code = models.IntegerField(null=True)
    closed_by = models.CharField(max_length=10, choices=ClosedBy.choices, blank=True, default="")
    close_reason = models.CharField(max_length=255, blank=True, default="")
    disconnection_reason = models.CharField(
        max_length=100, blank=True, default="", help_text="The platform's word for why the call ended."
    )

    sockets = models.PositiveIntegerField(
        default=1, help_text="How many sockets this call has had; reconnects are one less."
    )
    process = models.CharField(
        max_length=100, blank=True, default="", help_text="The process that holds the newest socket."
    )
    seen_at = models.DateTimeField(help_text="When that process last said that the call is alive.")

    turn_count = models.PositiveIntegerField("turns", default=0)
    reply_ms_median = models.PositiveIntegerField("median reply", null=True)
    reply_ms_max = models.PositiveIntegerField("slowest reply", null=True)
    fallback_count = models.PositiveIntegerField("fallbacks", default=0)
    failed_count = models.PositiveIntegerField("responder errors", default=0)
    timed_out_count = models.PositiveIntegerField("timed out", default=0)
    superseded_count = models.PositiveIntegerField("superseded", default=0)
    interrupted_count = models.PositiveIntegerField("interrupted", default=0)
    ping_count = models.PositiveIntegerField("pings", default=0)
    ping_gap_ms = models.PositiveIntegerField("worst gap between pings", null=True)
    odd_frames = models.PositiveIntegerField(default=0)
    events_dropped = models.PositiveIntegerField(default=0)

    objects = CallQuerySet.as_manager()

    class Meta:
        ordering = ["-started_at", "-pk"]
        permissions = [("prune_call", "Can delete old calls for good")]
        constraints = [
            models.UniqueConstraint(fields=["call_id", "attempt"], name="call_attempt_once"),
            models.CheckConstraint(
                condition=Q(status="live", ended_at=None) | Q(status="ended", ended_at__isnull=False),
                name="call_ended_has_a_time",
            ),
        ]
        indexes = [
            # the list, newest first, with and without an agent
            models.Index(fields=["-started_at", "-id"], name="call_newest"),
            models.Index(fields=["agent", "-started_at"], name="call_newest_of_agent"),
            # caps, the sweeper and the live page look at live calls only, which are few
            models.Index(fields=["seen_at"], condition=Q(status="live"), name="call_live_seen"),
            models.Index(fields=["from_number"], name="call_from"),
            models.Index(fields=["to_number"], name="call_to"),
        ]

    def __str__(self) -> str:
        return self.call_id if self.attempt == 1 else f"{self.call_id} ({self.attempt})"

    def get_absolute_url(self) -> str:
        return reverse("admin:calls_call_change", args=[self.pk])

    @property
    def reconnects(self) -> int:
        return max(self.sockets - 1, 0)

    def end(
        self,
        at: datetime,
        *,
        by: str,
        code: int | None = None,
        reason: str = "",
        socket: int | None = None,
    ) -> bool:
        """Ends the call once: True for the one that did it, False when it had ended or moved to a newer socket."""
        live = Call.objects.live().filter(pk=self.pk)
        if socket is not None:
            live = live.filter(sockets=socket)
        return bool(
            live.update(
                status=Call.Status.ENDED,
                ended_at=at,
                duration_s=max((at - self.started_at).total_seconds(), 0.0),
                close_code=code,
                closed_by=by,
                close_reason=reason[:255],
            )
        )


class Turn(models.Model):
    """One request of the platform and what became of the answer."""

    class Kind(models.TextChoices):
        BEGIN = "begin", "Greeting"
        RESPONSE = "response", "Response"
        REMINDER = "reminder", "Reminder"
        INTERRUPT = "interrupt", "Interrupt"

    class Outcome(models.TextChoices):
        OPEN = "open", "In progress"
        COMPLETED = "completed", "Completed"
        SUPERSEDED = "superseded", "Superseded by a newer request"
        FAILED = "failed", "Responder failed, fallback said"
        TIMED_OUT = "timed_out", "Too late, fallback said"
        FELL_BACK = "fell_back", "Responder said nothing, fallback said"
        CUT_OFF = "cut_off", "Socket ended first"

    call = models.ForeignKey(Call, models.CASCADE, related_name="turns")
    number = models.PositiveIntegerField(help_text="Counts from 1 through the whole call.")
    socket = models.PositiveIntegerField(default=1, help_text="Which socket of the call it was on.")
    response_id = models.BigIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, default=Outcome.OPEN)
    asked_at = models.DateTimeField()
    first_text_at = models.DateTimeField(null=True)
    first_sentence_at = models.DateTimeField(null=True)
    done_at = models.DateTimeField(null=True)
    text = models.TextField("sent", blank=True, default="")
    heard = models.TextField(blank=True, default="", help_text="The part of it that the transcript shows as spoken.")
    protected = models.BooleanField(default=False, help_text="The caller could not talk over it.")
    action = models.JSONField(null=True, help_text="What the platform was asked to do after it.")
    model = models.CharField(max_length=100, blank=True, default="")
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    tool_calls = models.JSONField(default=list)
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["call", "number"]
        constraints = [
            models.UniqueConstraint(fields=["call", "number"], name="turn_number_once"),
        ]

    def __str__(self) -> str:
        return f"turn {self.number} of {self.call_id}"

    @property
    def fell_back(self) -> bool:
        """The caller heard the fallback text instead of the responder."""
        return self.outcome in FALLBACKS

    def ms_to(self, moment: datetime | None) -> int | None:
        """Milliseconds from the request to a later moment of this turn."""
        return None if moment is None else round((moment - self.asked_at).total_seconds() * 1000)


FALLBACKS = (Turn.Outcome.FAILED, Turn.Outcome.TIMED_OUT, Turn.Outcome.FELL_BACK)


class Utterance(models.Model):
    """One entry of the newest transcript: what was heard, by whom."""

    call = models.ForeignKey(Call, models.CASCADE, related_name="utterances")
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=40)
    text = models.TextField(blank=True, default="")
    start_s = models.FloatField(null=True, help_text="Seconds of audio since the call began.")
    end_s = models.FloatField(null=True)
    first_seen_at = models.DateTimeField()
    changed_at = models.DateTimeField()
    turn = models.ForeignKey(
        Turn,
        models.SET_NULL,
        null=True,
        related_name="utterances",
        help_text="For an agent's words: the turn they came from.",
    )

    class Meta:
        ordering = ["call", "position"]
        constraints = [
            models.UniqueConstraint(fields=["call", "position"], name="utterance_position_once"),
        ]

    def __str__(self) -> str:
        return f"{self.role}: {self.text[:40]}"


class Event(models.Model):
    """One frame on the wire, or a note of ours about it, in order.

    A transcript is stored as the change from the one before: `{"keep": 3, "then": […]}` keeps
    the first three utterances and replaces the rest. Pings are counted on the call, not stored.
    """

    class Direction(models.TextChoices):
        IN = "in", "from the platform"
        OUT = "out", "to the platform"
        NOTE = "note", "note"

    id = models.BigAutoField(primary_key=True)
    call = models.ForeignKey(Call, models.CASCADE, related_name="events", db_index=False)
    at = models.DateTimeField()
    direction = models.CharField(max_length=4, choices=Direction.choices)
    kind = models.CharField(max_length=60)
    body = models.TextField(help_text="JSON text.")

    class Meta:
        ordering = ["call", "id"]
        indexes = [
            # the events of one call in order; also what deleting a call needs
            models.Index(fields=["call", "id"], name="event_of_call"),
        ]

    def __str__(self) -> str:
        return f"{self.direction} {self.kind}"


def _calls_saying(words: str) -> models.QuerySet[Utterance, Any]:
    # a subquery, because a join would need DISTINCT over all the calls it finds
    return Utterance.objects.filter(text__icontains=words).values("call")


def _digits(term: str) -> str:
    """The digits of a term that can be a part of a number, as in "(415) 555-0123"; else nothing."""
    digits = re.sub(r"[\s()+./-]", "", term)
    return digits if digits.isdecimal() and len(digits) >= 3 else ""
