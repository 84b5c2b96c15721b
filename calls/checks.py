"""`manage.py check`: a wrong setting is named with what to do, before the first call finds out."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

BAD_FRAME_POLICIES = ("1002", "1007", "ignore")


@register()
def check_addresses(**kwargs: Any) -> list[CheckMessage]:
    """The allowlist and the trusted proxies are addresses or networks."""
    return [
        Error(
            f"{name} holds {entry!r}, which is neither an address nor a network.",
            hint="Write addresses like 100.20.5.228 or networks like 10.0.0.0/8, separated by commas.",
            id="calls.E001",
        )
        for name in ("LLM_ALLOWED_ADDRESSES", "TRUSTED_PROXIES")
        for entry in getattr(settings, name)
        if not _is_network(entry)
    ]


@register()
def check_bad_frame_policy(**kwargs: Any) -> list[CheckMessage]:
    """The answer to bad frames is one of those the platform knows."""
    if settings.LLM_BAD_FRAMES in BAD_FRAME_POLICIES:
        return []
    return [
        Error(
            f"LLM_BAD_FRAMES is {settings.LLM_BAD_FRAMES!r}.",
            hint="Choose 1002 (as the platform's guide), 1007, or ignore.",
            id="calls.E002",
        )
    ]


@register()
def check_accelerator(**kwargs: Any) -> list[CheckMessage]:
    """Without autobahn's native code a frame costs ten to thirty times as much under Daphne."""
    try:
        from autobahn.websocket.utf8validator import Utf8Validator  # noqa: PLC0415 - optional
    except ImportError:
        return []  # another server
    if Utf8Validator.__module__.startswith("autobahn.nvx"):
        return []
    return [
        checks.Warning(
            "autobahn runs without its native accelerator (NVX), so every frame is slow.",
            hint="Install autobahn from a binary wheel, and unset AUTOBAHN_USE_NVX.",
            id="calls.W001",
        )
    ]


def _is_network(entry: str) -> bool:
    try:
        ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return True
