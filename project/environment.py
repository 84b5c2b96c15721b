"""Settings from the environment: typed, with an error that says what to do.
Remembers every name that was asked for, so that a test can hold the README's table against it."""

from __future__ import annotations

import os
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured
from dotenv import load_dotenv

KNOWN: dict[str, str] = {}
Number = TypeVar("Number", int, float)


def read_file(path: str) -> None:
    """Takes what a .env file says, unless the real environment says otherwise."""
    load_dotenv(path, override=False)


def text(name: str, default: str = "") -> str:
    """The variable as it is, without surrounding space."""
    KNOWN[name] = default
    return os.environ.get(name, default).strip()


def flag(name: str, default: bool) -> bool:
    """1, true, yes, on or 0, false, no, off."""
    word = text(name, "1" if default else "0").lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off", ""):
        return False
    raise ImproperlyConfigured(f"{name}={word!r}: write 1 or 0.")


def integer(name: str, default: int, low: int = 0) -> int:
    """A whole number, at least `low`."""
    return _number(name, default, low, int)


def seconds(name: str, default: float) -> float:
    """A span of time, zero or more."""
    return _number(name, default, 0.0, float)


def words(name: str, default: str = "") -> list[str]:
    """A list separated by commas or spaces."""
    return text(name, default).replace(",", " ").split()


def _number(name: str, default: Number, low: Number, kind: type[Number]) -> Number:
    written = text(name, str(default))
    try:
        value = kind(written)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={written!r}: write a number.") from None
    if not value >= low:
        raise ImproperlyConfigured(f"{name}={written!r}: write at least {low}.")
    return value
