"""Where the platform dials, and how it opens a socket there; what goes over the socket is line.py's."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from calls.phone.errors import AddressError, RefusedError, UnreachableError

HANDSHAKE_S = 7.0
CLOSE_S = 2.0

SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def address(url: str, *segments: str) -> str:
    """The URL with more path segments, before any query; http forms become ws forms. Raises AddressError."""
    try:
        parts = urlsplit(url)
        dialled = bool(parts.hostname) and parts.scheme in SCHEMES and parts.port != 0
    except ValueError:
        dialled = False
    if not dialled:
        raise AddressError(f"{url!r} is no WebSocket URL; one looks like ws://127.0.0.1:8000/llm-websocket")
    path = "/".join([parts.path.rstrip("/"), *(quote(segment, safe="") for segment in segments)])
    return urlunsplit(parts._replace(scheme=SCHEMES[parts.scheme], path=path))


async def open_socket(url: str, headers: Mapping[str, str]) -> ClientConnection:
    """A socket with neither Origin nor subprotocol, as the platform opens it."""
    here = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    try:
        return await connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=None,
            ping_interval=None,
            open_timeout=HANDSHAKE_S,
            close_timeout=CLOSE_S,
            proxy=None if here else True,
            user_agent_header=None,
        )
    except InvalidStatus as error:
        raise RefusedError(url, error.response.status_code) from None
    except InvalidURI:
        raise AddressError(f"{url!r} is no WebSocket URL") from None
    except (OSError, TimeoutError, InvalidHandshake, EOFError) as error:
        raise UnreachableError(f"no WebSocket server answers at {url}: {error or type(error).__name__}") from None
