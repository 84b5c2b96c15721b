"""Paths of the platform's socket; everything else on it is refused before it is accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from channels.routing import URLRouter
from django.urls import re_path

from calls.consumers import CallConsumer


async def refuse(scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Answers a handshake on a path that does not exist with HTTP 403."""
    await receive()
    await send({"type": "websocket.close"})


_router = URLRouter(
    [
        # the call id is the last segment, with or without a slash after it (protocol.md 1.1)
        re_path(r"^llm-websocket/(?:(?P<key>[^/]+)/)?(?P<call_id>[^/]+)/?$", CallConsumer.as_asgi()),
        re_path(r"", refuse),  # type: ignore[arg-type] # Channels routes applications, not views
    ]
)


async def platform_door(scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """The platform's sockets. A root path is the proxy's business: a client may not choose one."""
    await _router({**scope, "root_path": ""}, receive, send)
