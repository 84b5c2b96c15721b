"""All agents and keys as one immutable value, read from the database in one go.
A socket that knocks is answered from this value alone."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from msgspec import Struct

from agents.models import Agent, ConnectionKey, key_digest
from agents.settings import AgentSettings


class KnownKey(Struct, frozen=True):
    """A valid key: its row, the agent it opens, and the digest to compare with."""

    pk: int
    agent_pk: int
    digest: str


class Roster(Struct, frozen=True):
    """Who can be called. `agents` by primary key, active ones only."""

    agents: Mapping[int, AgentSettings] = {}
    keys: Mapping[str, KnownKey] = {}
    default: AgentSettings | None = None

    def by_key(self, text: str) -> tuple[KnownKey, AgentSettings] | None:
        """The agent a key opens; None for a key that is wrong, revoked, or of an inactive agent."""
        known = self.keys.get(text.partition("-")[0], _NOBODY)
        right = hmac.compare_digest(known.digest, key_digest(text))
        agent = self.agents.get(known.agent_pk)
        return (known, agent) if right and agent else None

    def by_platform_id(self) -> dict[str, AgentSettings]:
        """The agents that answer for an id of the platform."""
        return {agent.platform_agent_id: agent for agent in self.agents.values() if agent.platform_agent_id}


_NOBODY = KnownKey(0, 0, "0" * 64)


def read_roster() -> Roster:
    """The roster as the database has it now: two queries."""
    agents = list(Agent.objects.active())
    keys = ConnectionKey.objects.valid().filter(agent__is_active=True)
    return Roster(
        agents={agent.pk: agent.as_settings() for agent in agents},
        keys={
            prefix: KnownKey(pk, agent_pk, digest)
            for pk, agent_pk, prefix, digest in keys.values_list("pk", "agent_id", "prefix", "digest")
        },
        default=next((agent.as_settings() for agent in agents if agent.is_default), None),
    )
