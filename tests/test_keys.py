"""Connection keys: what opens an agent, what is kept of it, and how it is changed without an outage."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from django.db import connection

from agents.models import Agent, ConnectionKey, key_digest
from agents.roster import read_roster
from tests.cast import make_agent
from tests.live import add_agents, played
from tests.phone import dial, refusal
from tests.servers import Daphne, Servers

database = pytest.mark.database


def opened_by(text: str) -> Agent | None:
    """The agent that this text opens, as a knock would find it."""
    found = read_roster().by_key(text)
    return Agent.objects.get(pk=found[1].pk) if found else None


@database
@pytest.mark.django_db
class TestOpening:
    def test_the_whole_text_opens_its_agent(self) -> None:
        agent = make_agent()
        make_agent()
        _, text = ConnectionKey.create(agent, "production")
        assert opened_by(text) == agent

    @pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: t + "x", str.upper, lambda t: t.partition("-")[0]])
    def test_nothing_else_does(self, spoil: Any) -> None:
        _, text = ConnectionKey.create(make_agent())
        assert opened_by(spoil(text)) is None

    def test_the_secret_of_one_key_does_not_go_with_the_prefix_of_another(self) -> None:
        (_, one), (_, two) = (ConnectionKey.create(make_agent()) for _ in range(2))
        assert opened_by(f"{one.partition('-')[0]}-{two.partition('-')[2]}") is None

    @pytest.mark.parametrize("text", ["", "-", "kdeadbeef-sesame", "kdeadbeef", "é" * 300, "0" * 64])
    def test_an_unknown_prefix_opens_nothing(self, text: str) -> None:
        ConnectionKey.create(make_agent())
        assert opened_by(text) is None

    def test_several_keys_are_valid_at_once_and_each_can_be_revoked_alone(self) -> None:
        agent = make_agent()
        (old, old_text), (_, new_text) = (ConnectionKey.create(agent) for _ in range(2))
        assert [opened_by(text) for text in (old_text, new_text)] == [agent, agent]
        assert old.revoke()
        assert not old.revoke()
        assert [opened_by(text) for text in (old_text, new_text)] == [None, agent]

    def test_the_keys_of_an_agent_that_is_not_active_open_nothing(self) -> None:
        agent = make_agent()
        _, text = ConnectionKey.create(agent)
        Agent.objects.filter(pk=agent.pk).update(is_active=False)
        assert opened_by(text) is None

    def test_no_two_keys_are_alike(self) -> None:
        agent = make_agent()
        texts = {ConnectionKey.create(agent)[1] for _ in range(50)}
        assert len(texts) == 50
        assert min(len(text.partition("-")[2]) for text in texts) == len(secrets.token_urlsafe(32))


@database
@pytest.mark.django_db
class TestStorage:
    def test_only_the_digest_of_a_key_is_kept(self) -> None:
        key, text = ConnectionKey.create(make_agent(), "production")
        prefix, _, secret = text.partition("-")
        stored = everything("agents_connectionkey")
        assert (key.prefix, key.digest) == (prefix, key_digest(text))
        assert key.digest in stored
        assert secret not in stored

    def test_a_key_shows_itself_by_its_prefix_alone(self) -> None:
        key, text = ConnectionKey.create(make_agent())
        assert str(key) == f"{text.partition('-')[0]}…"
        assert text.partition("-")[2] not in repr(key)

    def test_what_is_stored_opens_nothing(self) -> None:
        key, _ = ConnectionKey.create(make_agent())
        assert [opened_by(text) for text in (key.digest, f"{key.prefix}-{key.digest}", key.prefix)] == [None] * 3


def everything(table: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return repr(cursor.fetchall())


# ---------------------------------------------------------------- on a real server


@pytest.fixture(scope="module")
def server(module_daphne: Servers) -> Daphne:
    return module_daphne()


def second_key(server: Daphne, url: str) -> str:
    """Another URL of the agent that this one opens."""
    prefix = url.rpartition("/")[2].partition("-")[0]
    text = server.shell(
        "from agents.models import ConnectionKey; "
        f"print(ConnectionKey.create(ConnectionKey.objects.get(prefix={prefix!r}).agent)[1])"
    )
    return f"{server.ws_url}/{text.strip()}"


def revoke(server: Daphne, url: str) -> None:
    prefix = url.rpartition("/")[2].partition("-")[0]
    server.shell(f"from agents.models import ConnectionKey; ConnectionKey.objects.get(prefix={prefix!r}).revoke()")


@played
async def test_a_key_is_changed_without_an_outage(server: Daphne) -> None:
    old = add_agents(server, rotated={"fallback_text": "Yes?"})["rotated"]
    async with dial(old, "on-the-old-key") as first:
        await first.greeting()
        new = second_key(server, old)
        async with dial(new, "on-the-new-key") as second, dial(old, "still-on-the-old-key") as third:
            await second.expect_reply("Hello", "Yes?")
            await third.expect_reply("Hello", "Yes?")
        revoke(server, old)
        assert await refusal(old) == 403
        await first.expect_reply("Still there?", "Yes?")
        async with dial(new) as fourth:
            await fourth.expect_reply("Hello", "Yes?")


@played
async def test_a_revoked_key_does_not_bring_a_dropped_call_back(server: Daphne) -> None:
    url = add_agents(server, revoked={})["revoked"]
    async with dial(url, "revoked-meanwhile") as phone:
        await phone.greeting()
        revoke(server, url)
        await phone.drop()
        assert await refusal(url, "revoked-meanwhile") == 403


@played
async def test_a_key_does_not_take_over_the_live_call_of_another_agent(server: Daphne) -> None:
    urls = add_agents(server, mine={}, theirs={})
    async with dial(urls["mine"], "mine-alone") as phone:
        await phone.greeting()
        assert await refusal(urls["theirs"], "mine-alone") == 403
        await phone.say("Still mine?")


@played
async def test_a_live_call_on_a_key_is_not_taken_over_without_one(server: Daphne) -> None:
    """The platform dials again at the URL it dialled first."""
    url = add_agents(server, keyed={})["keyed"]
    async with dial(url, "keyed-call") as phone:
        await phone.greeting()
        assert await refusal(server.ws_url, "keyed-call") == 403
        await phone.say("Still mine?")


@played
async def test_a_dump_of_the_database_after_calls_does_not_reveal_a_key(server: Daphne) -> None:
    url = add_agents(server, dumped={})["dumped"]
    secret = url.rpartition("/")[2].partition("-")[2]
    async with dial(url, "dumped-call") as phone:
        await phone.say("Hello")
    async with dial(f"{server.ws_url}?key={url.rpartition('/')[2]}", "dumped-query") as phone:
        await phone.say("Hello")
    server.shell(
        "from calls.models import Call; from tests.waiting import until; "
        "until(lambda: Call.objects.ended().filter(call_id__startswith='dumped', key__isnull=False).count() == 2)"
    )
    dump = server.manage("dumpdata", "agents", "calls")
    assert {"dumped-call", "dumped-query"} < {row["fields"].get("call_id") for row in json.loads(dump)}
    assert secret not in dump
    assert secret not in server.log


@played
async def test_the_use_of_a_key_is_noted(server: Daphne) -> None:
    url = add_agents(server, used={})["used"]
    prefix = url.rpartition("/")[2].partition("-")[0]
    unused = "SELECT last_used_at FROM agents_connectionkey WHERE prefix = %s"
    assert server.rows(unused, prefix) == [{"last_used_at": None}]
    async with dial(url, "used-key") as phone:
        await phone.greeting()
    server.shell(
        "from agents.models import ConnectionKey; from tests.waiting import until; "
        f"until(lambda: ConnectionKey.objects.get(prefix={prefix!r}).last_used_at)"
    )
