"""The responder without a brain: it says the agent's own words.
It answers at once and cannot fail, so it is also what the protocol tests run against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agents.responders.base import Done, Event, Responder

if TYPE_CHECKING:
    from calls.turns import Turn


class FixedResponder(Responder):
    """The reminder text when the caller has gone quiet, the fallback text to everything else."""

    kind = "fixed"
    label = "Fixed text"

    async def reply(self, turn: Turn) -> AsyncIterator[Event]:
        """One frame, known beforehand."""
        reminder = self.agent.reminder_text if turn.is_reminder else ""
        yield Done(reminder or self.agent.fallback_text)
