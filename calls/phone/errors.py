"""What can go wrong with a call, as sentences for a person, and how a socket ended."""

from __future__ import annotations

from typing import NamedTuple


class Closed(NamedTuple):
    """How a socket ended; 1006 means without a close frame."""

    code: int
    reason: str


class PhoneError(Exception):
    """The call did not go as the platform would have it; the message is a sentence for a person.

    PhoneError
        AddressError        no URL of a WebSocket
        UnreachableError    nobody answers there, or not as a WebSocket
        RefusedError        the handshake was answered with an HTTP status
        SilenceError        what was waited for did not come in time
        HungUpError         the socket closed while something was waited for
        RuleError           the server broke a rule of the protocol (strict phones only)
    """


class AddressError(PhoneError):
    """The address is no URL of a WebSocket."""


class UnreachableError(PhoneError):
    """No WebSocket server answers at the address."""


class RefusedError(PhoneError):
    """The server answered the handshake with `status` instead of accepting it."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{url} refused the call with HTTP {status}")
        self.status = status


class SilenceError(PhoneError):
    """The server was silent for longer than the caller was ready to wait."""


class HungUpError(PhoneError):
    """The socket closed; `closed` has the code and the reason."""

    def __init__(self, waiting_for: str, closed: Closed) -> None:
        super().__init__(f"the socket closed with {closed.code} {closed.reason!r} instead of {waiting_for}")
        self.closed = closed


class RuleError(PhoneError):
    """The server sent what the platform would drop, or should never see."""
