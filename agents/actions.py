"""What the platform can be asked to do once a reply has been spoken (protocol.md 4.6).
Plain values, shared by responders, which choose them, and the call, which sends them."""

from __future__ import annotations

from msgspec import Struct


class EndCall(Struct, frozen=True, tag="end_call"):
    """Hang up."""


class Transfer(Struct, frozen=True, tag="transfer"):
    """Cold-transfer the caller to a number the platform can dial."""

    number: str
    show_transferee_as_caller: bool = False


class PressDigits(Struct, frozen=True, tag="press_digits"):
    """Send touch tones: 0-9, * and #."""

    digits: str


Action = EndCall | Transfer | PressDigits
