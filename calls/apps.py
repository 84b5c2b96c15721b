"""The app of calls: from the handshake to the record."""

from django.apps import AppConfig


class CallsConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "calls"

    def ready(self) -> None:
        from calls import checks  # noqa: F401, PLC0415 - registers itself; models must be loaded first
