"""`manage.py prune_calls --days 90`: deletes calls that ended longer ago, for good. For a nightly timer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from calls.models import Call


class Command(BaseCommand):
    help = "Delete calls that ended more than this many days ago, with all that is recorded of them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, required=True, help="how many days of calls to keep")

    def handle(self, *args: Any, **options: Any) -> None:
        days: int = options["days"]
        if days < 1:
            raise CommandError("--days has to be at least 1.")
        deleted = sum(Call.objects.prune(timezone.now() - timedelta(days=days)))
        self.stdout.write(f"Deleted {deleted:,} calls that ended more than {days} days ago.")
