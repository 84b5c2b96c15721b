"""The address to paste into the platform, as this server is reached from outside."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest

PLAIN_SCHEMES = ("http", "ws")


def socket_url(request: HttpRequest, key: str = "") -> str:
    """Where the platform dials in: for the agent a key opens, or without one for the default agent.

    `PUBLIC_URL` says it where a proxy hides the outside name; otherwise it is the name this page was
    asked for by. The platform appends the call's id itself.
    """
    return f"{_base(request)}/llm-websocket/{key}"


def _base(request: HttpRequest) -> str:
    if not settings.PUBLIC_URL:
        return f"{'wss' if request.is_secure() else 'ws'}://{request.get_host()}"
    url = settings.PUBLIC_URL if "://" in settings.PUBLIC_URL else f"https://{settings.PUBLIC_URL}"
    parts = urlsplit(url)
    scheme = "ws" if parts.scheme in PLAIN_SCHEMES else "wss"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
