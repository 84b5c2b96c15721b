"""The pretend platform for tests: `async with dial(url) as phone` always hangs up, and no rule was broken.
Says what was expected when it did not happen; the rules themselves are in calls/phone/."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from calls.phone import Closed, Phone, RefusedError, Reply
from calls.protocol import Outbound

DETAILS: dict[str, Any] = {
    "agent_id": "agent_harbor01",
    "agent_version": 4,
    "metadata": {"crm_id": "C-881"},
    "retell_llm_dynamic_variables": {"customer_name": "Ines", "open_ticket": "HC-207"},
}


class TestPhone(Phone):
    """A phone that states expectations; each fails with what came instead."""

    __test__ = False

    async def expect(self, *frames: Outbound) -> None:
        """The next frames are these, in this order."""
        for number, frame in enumerate(frames, 1):
            found = await self.next_frame()
            assert found == frame, f"frame {number} of {len(frames)}:\n  expected {frame}\n  got      {found}"

    async def expect_greeting(self, text: str) -> None:
        """The begin message is this."""
        found = await self.greeting()
        assert found == text, f"expected the greeting {text!r}, got {found!r}"

    async def expect_reply(self, said: str, text: str) -> Reply:
        """What the caller says is answered by exactly this text."""
        reply = await self.say(said)
        assert reply.text == text, f"expected {text!r} in answer to {said!r}, got {reply.text!r}"
        return reply

    async def expect_closed(self, code: int, reason: str | None = None) -> None:
        """The server ends the socket with this code; None accepts any reason."""
        found = await self.closed
        wanted = Closed(code, found.reason if reason is None else reason)
        assert found == wanted, f"expected the socket to close with {wanted}, got {found}"


@asynccontextmanager
async def dial(
    url: str, call_id: str | None = None, *, deviations: bool = False, **options: Any
) -> AsyncIterator[TestPhone]:
    """A dialled phone (options as for `Phone`) that hangs up whatever happens.

    A broken rule of the protocol fails the test, unless `deviations` are what it is about.
    """
    phone = TestPhone(url, call_id, strict=not deviations, **options)
    await phone.dial()
    try:
        yield phone
    finally:
        await phone.hang_up()
    assert deviations or not phone.violations, f"the server broke rules: {phone.violations}"


async def refusal(url: str, call_id: str | None = None, **options: Any) -> int:
    """The HTTP status with which the server refuses this call."""
    try:
        async with dial(url, call_id, **options):
            raise AssertionError(f"expected {url} to refuse the call, but it was accepted")
    except RefusedError as refused:
        return refused.status
