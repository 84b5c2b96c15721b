"""Rows for tests of the console: an agent, a call, and what was said in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from django.contrib.auth.models import Permission, User

from agents.models import Agent
from calls.models import Call, Event, Turn, Utterance

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_numbers = count(1)


def make_agent(**fields: Any) -> Agent:
    number = next(_numbers)
    return Agent.objects.create(**{"name": f"Agent {number}", "slug": f"agent-{number}", **fields})


def make_call(**fields: Any) -> Call:
    """An ordinary call of 90 seconds that the platform ended, unless told otherwise."""
    started = fields.setdefault("started_at", START)
    ended = {
        "status": "ended",
        "ended_at": started + timedelta(seconds=90),
        "duration_s": 90.0,
        "close_code": 1000,
        "closed_by": "platform",
    }
    if fields.get("status") == "live":
        ended = {}
    return Call.objects.create(**{"call_id": f"call_{next(_numbers)}", "seen_at": started, **ended, **fields})


def after(seconds: float) -> datetime:
    """A moment of a call that began at START."""
    return START + timedelta(seconds=seconds)


def make_turn(call: Call, number: int, at: float = 1.0, **fields: Any) -> Turn:
    given = {"response_id": number, "kind": "response", "outcome": "completed", "asked_at": after(at)}
    return Turn.objects.create(call=call, number=number, **{**given, **fields})


def say(
    call: Call, position: int, text: str, at: float = 1.0, role: str = "user", turn: Turn | None = None
) -> Utterance:
    return Utterance.objects.create(
        call=call, position=position, role=role, text=text, turn=turn, first_seen_at=after(at), changed_at=after(at)
    )


def make_event(call: Call, kind: str, body: str = "{}", at: float = 0.0, direction: str = "note") -> Event:
    return Event.objects.create(call=call, at=after(at), direction=direction, kind=kind, body=body)


def staff(*permissions: str) -> User:
    """Somebody with a login and these permissions, such as "view_call"."""
    user = User.objects.create_user(f"staff{next(_numbers)}", password="x", is_staff=True)
    found = Permission.objects.filter(codename__in=permissions)
    assert found.count() == len(permissions), f"no such permission among {permissions}"
    user.user_permissions.set(found)
    return user
