"""calls/gate.py: where a socket comes from, and whether it is let in, as values (protocol.md 1.2, A1, A9)."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from agents.models import key_digest
from agents.roster import KnownKey, Roster
from agents.settings import AgentSettings
from calls.gate import (
    Admitted,
    Counts,
    Knock,
    Local,
    Refused,
    Rules,
    Unknown,
    decide,
    knock,
    networks,
    source,
)

PLATFORM = "100.20.5.228"
PROXIES = networks(["127.0.0.0/8", "::1", "10.0.0.0/24"])


def scope(peer: str | None, *forwarded: str, **fields: Any) -> dict[str, Any]:
    """An ASGI scope; each of `forwarded` is one X-Forwarded-For line."""
    headers = [(b"host", b"example.com"), *((b"x-forwarded-for", line.encode("latin-1")) for line in forwarded)]
    return {"client": [peer, 40000] if peer else None, "headers": headers, **fields}


def said(found: object) -> str:
    return str(found) if not isinstance(found, Local | Unknown) else type(found).__name__


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        # nobody forwarded
        (PLATFORM, [], PLATFORM),
        ("127.0.0.1", [], "127.0.0.1"),
        ("2600:1f14::7", [], "2600:1f14::7"),
        ("::ffff:100.20.5.228", [], PLATFORM),
        (None, [], "Local"),
        # a stranger's header is nobody's word
        ("203.0.113.9", [PLATFORM], "203.0.113.9"),
        ("203.0.113.9", ["not an address"], "203.0.113.9"),
        # our proxies are believed, the right-most first
        ("127.0.0.1", [PLATFORM], PLATFORM),
        ("::1", [PLATFORM], PLATFORM),
        ("::ffff:127.0.0.1", [PLATFORM], PLATFORM),
        (None, [PLATFORM], PLATFORM),
        ("127.0.0.1", [f"{PLATFORM}, 10.0.0.5"], PLATFORM),
        ("127.0.0.1", [f"{PLATFORM}, 10.0.0.5, 127.0.0.2"], PLATFORM),
        # what a client put in front of the chain is not reached
        ("127.0.0.1", [f"{PLATFORM}, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", [f"{PLATFORM}, 203.0.113.9, 10.0.0.5"], "203.0.113.9"),
        (None, [f"{PLATFORM}, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["garbage, 203.0.113.9"], "203.0.113.9"),
        # several lines are one list, in their order
        ("127.0.0.1", [PLATFORM, "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9", PLATFORM], PLATFORM),
        ("127.0.0.1", [PLATFORM, "10.0.0.5"], PLATFORM),
        # a chain of our own proxies alone begins at its first
        ("127.0.0.1", ["10.0.0.5"], "10.0.0.5"),
        # as proxies write addresses
        ("127.0.0.1", [f"{PLATFORM}:51034"], PLATFORM),
        ("127.0.0.1", [f"::ffff:{PLATFORM}"], PLATFORM),
        ("127.0.0.1", ['"[2600:1f14::7]:51034"'], "2600:1f14::7"),
        ("127.0.0.1", ["[2600:1f14::7]"], "2600:1f14::7"),
        ("127.0.0.1", [f"  {PLATFORM}  ,"], PLATFORM),
        ("127.0.0.1", ["", PLATFORM, ""], PLATFORM),
        ("127.0.0.1", [", ,"], "127.0.0.1"),
        # what a trusted hop forwards and nobody can read is no address at all
        ("127.0.0.1", ["unknown"], "Unknown"),
        ("127.0.0.1", [f"{PLATFORM}, _hidden"], "Unknown"),
        ("127.0.0.1", ["100.20.5.999"], "Unknown"),
        ("127.0.0.1", ["100.20.5.228/32"], "Unknown"),
        ("127.0.0.1", ["\xb2\xb9"], "Unknown"),
        (None, ["unix:"], "Unknown"),
    ],
)
def test_the_source_is_the_right_most_address_that_no_proxy_of_ours_vouches_for(
    peer: str | None, forwarded: list[str], found: str
) -> None:
    assert said(source(scope(peer, *forwarded), PROXIES)) == found


def test_without_trusted_proxies_only_a_unix_socket_forwards() -> None:
    assert said(source(scope("127.0.0.1", PLATFORM), ())) == "127.0.0.1"
    assert said(source(scope(None, f"{PLATFORM}, 127.0.0.1"), ())) == "127.0.0.1"


@pytest.mark.parametrize(
    ("query", "in_path", "key"),
    [
        (b"", None, None),
        (b"key=k1-secret", None, "k1-secret"),
        (b"a=b&key=k1-secret&key=k2-other", None, "k1-secret"),
        (b"key=k%31-secret", None, "k1-secret"),
        (b"key=k1-secret", "k2-path", "k2-path"),
        (b"key=", None, None),
        (b"keys=k1-secret", None, None),
        (b"\xff=%ff&key=\xff", None, "\xff"),
    ],
)
def test_the_key_is_in_the_path_or_else_in_the_query(query: bytes, in_path: str | None, key: str | None) -> None:
    """protocol.md A1."""
    routed = {"url_route": {"kwargs": {"call_id": "c1", "key": in_path}}, "query_string": query}
    assert knock(scope(PLATFORM, **routed), ()) == Knock("c1", key, ipaddress.ip_address(PLATFORM))


# ---------------------------------------------------------------- the decision

DEFAULT = AgentSettings(pk=1, name="Default", platform_agent_id="agent_1")
OTHER = AgentSettings(pk=2, name="Other", platform_agent_id="agent_2", max_calls=2)
ROSTER = Roster(
    agents={1: DEFAULT, 2: OTHER},
    keys={
        "k1": KnownKey(11, 1, key_digest("k1-one")),
        "k2": KnownKey(12, 2, key_digest("k2-two")),
        "k9": KnownKey(19, 9, key_digest("k9-of-an-inactive-agent")),
    },
    default=DEFAULT,
)
OPEN = Rules()


def knocks(call_id: str = "c1", key: str | None = None, peer: object = None) -> Knock:
    return Knock(call_id, key, peer or ipaddress.ip_address(PLATFORM))  # type: ignore[arg-type]


def reason(found: Admitted | Refused) -> str:
    return found.reason if isinstance(found, Refused) else ""


def test_the_bare_url_belongs_to_the_default_agent_and_to_those_the_platform_may_name() -> None:
    assert decide(knocks(), OPEN, ROSTER, Counts()) == Admitted(DEFAULT, None, {"agent_1": DEFAULT, "agent_2": OTHER})


def test_a_key_opens_its_own_agent_and_no_other() -> None:
    assert decide(knocks(key="k2-two"), OPEN, ROSTER, Counts()) == Admitted(OTHER, 12)


@pytest.mark.parametrize(
    "key", ["k2-one", "k2", "k2-", "-two", "k3-two", "k2-two ", "K2-two", "k9-of-an-inactive-agent", "é"]
)
def test_a_key_that_is_wrong_unknown_or_of_an_inactive_agent_stays_out(key: str) -> None:
    assert decide(knocks(key=key), OPEN, ROSTER, Counts()) == Refused("key", "no active agent has this key")


def test_a_wrong_key_is_not_forgiven_because_the_bare_url_is_open_or_the_call_is_known() -> None:
    assert reason(decide(knocks(key="k2-one"), OPEN, ROSTER, Counts(), known_call=True)) == "key"


def test_the_bare_url_can_be_switched_off() -> None:
    closed = Rules(open_url=False)
    assert decide(knocks(), closed, ROSTER, Counts()) == Refused("key", "the URL has no key, and LLM_OPEN_URL is off")
    assert decide(knocks(key="k1-one"), closed, ROSTER, Counts()) == Admitted(DEFAULT, 11)


def test_the_bare_url_needs_a_default_agent() -> None:
    nobody = Roster(agents={2: OTHER}, keys=ROSTER.keys)
    assert reason(decide(knocks(), OPEN, nobody, Counts())) == "agent"
    assert decide(knocks(key="k2-two"), OPEN, nobody, Counts()) == Admitted(OTHER, 12)


@pytest.mark.parametrize(
    ("peer", "refused"),
    [
        (ipaddress.ip_address(PLATFORM), ""),
        (ipaddress.ip_address("192.0.2.77"), ""),
        (ipaddress.ip_address("2001:db8::5"), ""),
        (Local(), ""),
        (Unknown(), "address"),
        (ipaddress.ip_address("100.20.5.229"), "address"),
        (ipaddress.ip_address("2001:db9::5"), "address"),
        (ipaddress.ip_address("127.0.0.1"), "address"),
    ],
)
def test_only_listed_addresses_come_in(peer: object, refused: str) -> None:
    rules = Rules(allowed=networks([PLATFORM, "192.0.2.0/24", "2001:db8::/32"]))
    assert reason(decide(knocks(peer=peer), rules, ROSTER, Counts())) == refused


def test_without_a_list_every_address_comes_in() -> None:
    assert reason(decide(knocks(peer=Unknown()), OPEN, ROSTER, Counts())) == ""


@pytest.mark.parametrize("call_id", ["c" * 256, "c\n", "c\x00", "c\x7f", "\u2028", "c\ud800", "c\u200b"])
def test_call_ids_that_are_too_long_or_cannot_be_shown_stay_out(call_id: str) -> None:
    assert reason(decide(knocks(call_id), OPEN, ROSTER, Counts(), known_call=True)) == "call id"


@pytest.mark.parametrize("call_id", ["c" * 255, "call 7", "é/ü", "電話", "<script>"])
def test_any_other_call_id_is_the_platforms_business(call_id: str) -> None:
    assert reason(decide(knocks(call_id), OPEN, ROSTER, Counts())) == ""


def test_a_full_server_takes_no_new_call_and_lets_known_ones_back() -> None:
    rules = Rules(max_calls=3)
    assert reason(decide(knocks(), rules, ROSTER, Counts(2))) == ""
    refused = decide(knocks(), rules, ROSTER, Counts(3))
    assert refused == Refused("full", "3 calls are live, LLM_MAX_CALLS is 3")
    assert reason(decide(knocks(), rules, ROSTER, Counts(3), known_call=True)) == ""


def test_a_full_agent_takes_no_new_call_and_lets_known_ones_back() -> None:
    key = "k2-two"
    assert reason(decide(knocks(key=key), OPEN, ROSTER, Counts(9, {2: 1}))) == ""
    refused = decide(knocks(key=key), OPEN, ROSTER, Counts(9, {2: 2}))
    assert refused == Refused("agent full", "2 calls of “Other” are live, its limit is 2")
    assert reason(decide(knocks(key=key), OPEN, ROSTER, Counts(9, {2: 2}), known_call=True)) == ""
    assert reason(decide(knocks(), OPEN, ROSTER, Counts(9, {2: 2}))) == ""


@pytest.mark.parametrize("secret", ["k2-sesame", "sesame"])
def test_a_refusal_does_not_repeat_the_key(secret: str) -> None:
    assert "sesame" not in repr(decide(knocks(key=secret), OPEN, ROSTER, Counts()))


def test_networks_are_addresses_or_ranges_and_nothing_else() -> None:
    assert [str(found) for found in networks([PLATFORM, "192.0.2.7/24"])] == [f"{PLATFORM}/32", "192.0.2.0/24"]
    with pytest.raises(ValueError, match=r"example\.com"):
        networks(["example.com"])
