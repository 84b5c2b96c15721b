"""May this socket come in? Address, key and caps, decided from values before anything is accepted.
Reads no database: the roster and the counts are handed in (protocol.md 1.2, A1, A9)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from msgspec import Struct

from agents.roster import Roster
from agents.settings import AgentSettings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Longer ones are not the platform's, and no column holds them.
LONGEST_CALL_ID = 255


class Unknown(Struct, frozen=True):
    """Where a socket comes from cannot be told: a trusted proxy forwarded something unreadable."""


class Local(Struct, frozen=True):
    """A peer on a Unix socket that nobody forwarded: somebody on this machine."""


class Knock(Struct, frozen=True):
    """What a socket says of itself before it is let in. `key` is None on the URL without one."""

    call_id: str
    key: str | None
    source: Address | Unknown | Local


class Rules(Struct, frozen=True):
    """Who is let in. An empty allowlist lets every address in."""

    allowed: tuple[Network, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    open_url: bool = True
    max_calls: int = 2000


class Counts(Struct, frozen=True):
    """How many calls are live: in this process, and of each agent by primary key."""

    here: int = 0
    of_agent: Mapping[int, int] = {}


class Admitted(Struct, frozen=True):
    """Come in: the agent that answers, and the others that `call_details` may still name."""

    agent: AgentSettings
    key: int | None = None
    others: Mapping[str, AgentSettings] = {}


class Refused(Struct, frozen=True):
    """Stay out; `reason` is one of a few words, to be counted, and holds no secret."""

    reason: str
    why: str


def knock(scope: Mapping[str, Any], trusted: Sequence[Network]) -> Knock:
    """The knock of an ASGI WebSocket scope that has been routed by path."""
    named = scope["url_route"]["kwargs"]
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    key = named.get("key") or next(iter(query.get("key", [])), None)
    return Knock(named["call_id"], key, source(scope, trusted))


def source(scope: Mapping[str, Any], trusted: Sequence[Network]) -> Address | Unknown | Local:
    """The right-most address that no trusted proxy vouches for.

    Only what a trusted peer forwards is believed, and only as far back as the chain is trusted.
    A peer on a Unix socket is this machine's own proxy.
    """
    peer = scope.get("client")
    here = _address(peer[0]) if peer else Local()
    forwarded = _forwarded(scope.get("headers", ()))
    for hop in reversed(forwarded):
        if not _trusts(here, trusted):
            break
        here = _address(hop)
    return here


def decide(
    knocking: Knock, rules: Rules, roster: Roster, counts: Counts, *, known_call: bool = False
) -> Admitted | Refused:
    """Whether a call comes in, and who answers it. `known_call`: it is live, this is its next socket."""
    refused = _bad_source(knocking.source, rules) or _bad_call_id(knocking.call_id)
    if refused:
        return refused
    admitted = _by_key(knocking.key, roster) if knocking.key else _without_key(rules, roster)
    if isinstance(admitted, Refused) or known_call:
        return admitted
    return _over_cap(admitted.agent, rules, counts) or admitted


def networks(entries: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks as written in settings; raises ValueError for anything else."""
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)


def _bad_source(source: Address | Unknown | Local, rules: Rules) -> Refused | None:
    if not rules.allowed or isinstance(source, Local):
        return None
    if isinstance(source, Unknown):
        return Refused("address", "the forwarded address cannot be read")
    if any(source in network for network in rules.allowed):
        return None
    return Refused("address", f"{source} is not in LLM_ALLOWED_ADDRESSES")


def _bad_call_id(call_id: str) -> Refused | None:
    if len(call_id) > LONGEST_CALL_ID or not call_id.isprintable():
        return Refused("call id", "the call id is too long or holds control characters")
    return None


def _by_key(key: str, roster: Roster) -> Admitted | Refused:
    found = roster.by_key(key)
    if found is None:
        return Refused("key", "no active agent has this key")
    known, agent = found
    return Admitted(agent, known.pk)


def _without_key(rules: Rules, roster: Roster) -> Admitted | Refused:
    if not rules.open_url:
        return Refused("key", "the URL has no key, and LLM_OPEN_URL is off")
    if roster.default is None:
        return Refused("agent", "there is no default agent for the URL without a key")
    return Admitted(roster.default, None, roster.by_platform_id())


def _over_cap(agent: AgentSettings, rules: Rules, counts: Counts) -> Refused | None:
    if counts.here >= rules.max_calls:
        return Refused("full", f"{counts.here} calls are live, LLM_MAX_CALLS is {rules.max_calls}")
    live = counts.of_agent.get(agent.pk or 0, 0)
    if agent.max_calls is not None and live >= agent.max_calls:
        return Refused("agent full", f"{live} calls of “{agent.name}” are live, its limit is {agent.max_calls}")
    return None


def _trusts(here: Address | Unknown | Local, trusted: Sequence[Network]) -> bool:
    if isinstance(here, Local):
        return True
    return not isinstance(here, Unknown) and any(here in network for network in trusted)


def _forwarded(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    joined = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    return [hop for hop in joined.decode("latin-1").split(",") if hop.strip()]


def _address(written: str) -> Address | Unknown:
    """An address as peers and proxies write it: bare, with a port, in brackets, or mapped into IPv6."""
    text = written.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return Unknown()
    return getattr(address, "ipv4_mapped", None) or address
