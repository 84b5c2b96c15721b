"""`manage.py setup`: from an empty database to a server that answers its first call. Safe to repeat."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from agents.models import Agent

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - no binding, only how to reach it from here
NEEDS_PUBLIC_URL = "The platform dials in from outside: it needs a public wss:// address, see README.md."
NEEDS_KEY = "<key> is a connection key; make one on the agent's page in the console."


class Command(BaseCommand):
    help = "Makes tables, static files, a default agent and a first superuser, if missing, and prints the addresses."
    # some checks ask the database, which may have no tables yet
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="Where the server will listen.")
        parser.add_argument("--port", type=int, default=settings.PORT)

    def handle(self, *, host: str, port: int, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        self.check()
        collect_static()
        make_agent()
        password = make_admin()
        self.stdout.write("\n".join(banner(host, port, password)))


def collect_static() -> None:
    """In production pages refer to hashed copies; development serves the files where they are."""
    if settings.DEBUG:
        return
    manifest = Path(settings.STATIC_ROOT) / "staticfiles.json"
    if manifest.exists() and manifest.stat().st_mtime > max(static_times(), default=0):
        return
    call_command("collectstatic", interactive=False, verbosity=0)


def static_times() -> Iterator[float]:
    """When each static file was last changed."""
    for finder in get_finders():
        for name, storage in finder.list([]):
            yield storage.get_modified_time(name).timestamp()


def make_agent() -> None:
    """The agent of a new installation sends just the frames of the platform's first guide."""
    if Agent.objects.exists():
        return
    Agent.objects.create(
        name="Default agent", slug="default", is_default=True, auto_reconnect=False, call_details=False
    )


def make_admin() -> str:
    """The generated password of a new superuser; empty when there is none to tell."""
    if User.objects.filter(is_superuser=True).exists():
        return ""
    if User.objects.filter(username=settings.ADMIN_USER).exists():
        raise CommandError(f"“{settings.ADMIN_USER}” is no superuser, and there is no other: set ADMIN_USER.")
    generated = "" if settings.ADMIN_PASSWORD else secrets.token_urlsafe(12)
    User.objects.create_superuser(settings.ADMIN_USER, password=generated or settings.ADMIN_PASSWORD)
    return generated


def banner(host: str, port: int, password: str) -> Iterator[str]:
    """What whoever starts the server does next, line by line."""
    place = ANYWHERE.get(host, host)
    place = f"[{place}]:{port}" if ":" in place else f"{place}:{port}"
    yield ""
    yield f"  Console   http://{place}{reverse('admin:index')}"
    if password:
        yield f"  Sign in   {settings.ADMIN_USER} with {password} (shown only this once)"
    yield f"  Platform  {platform_url(place)} (paste it as the Custom LLM URL)"
    if not settings.LLM_OPEN_URL:
        yield f"            {NEEDS_KEY}"
    if not settings.PUBLIC_URL:
        yield f"            {NEEDS_PUBLIC_URL}"
    yield ""


def platform_url(place: str) -> str:
    """Where calls come in."""
    scheme, _, outside = settings.PUBLIC_URL.rstrip("/").rpartition("://")
    plain = not outside or scheme in ("http", "ws")
    key = "" if settings.LLM_OPEN_URL else "/<key>"
    return f"{'ws' if plain else 'wss'}://{outside or place}/llm-websocket{key}"
