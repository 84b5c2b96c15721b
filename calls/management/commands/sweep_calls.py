"""`manage.py sweep_calls`: closes calls that are marked live although their process is gone."""

from typing import Any

from django.core.management.base import BaseCommand

from calls.sweeper import sweep


class Command(BaseCommand):
    help = "Closes calls that are still marked live although the process that held them is gone."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{sweep()} calls closed")
