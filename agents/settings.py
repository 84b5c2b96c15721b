"""An agent as a value: the settings that a call starts with and keeps until its end.
Made from the database by roster.py; knows no database itself."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

GREETING = "How may I help you?"
FALLBACK = "I am sorry, can you say that again?"

_VARIABLE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")


class AgentSettings(Struct, frozen=True):
    """What one call needs to know of its agent. Times are seconds, except where the platform counts in ms."""

    pk: int | None = None
    name: str = "Default agent"
    platform_agent_id: str = ""

    greeting: str = GREETING
    greeting_without_variables: str = ""
    speak_first: bool = True
    fallback_text: str = FALLBACK
    reminder_text: str = ""
    hold_line: str = ""

    responder: str = "fixed"
    responder_settings: dict[str, Any] = {}

    hold_after_s: float = 2.0
    first_text_s: float = 4.0
    reply_s: float = 30.0

    auto_reconnect: bool = False
    call_details: bool = False
    transcript_with_tool_calls: bool = False
    responsiveness: float | None = None
    interruption_sensitivity: float | None = None
    reminder_trigger_ms: int | None = None
    reminder_max_count: int | None = None

    max_calls: int | None = None

    @property
    def greeting_variables(self) -> list[str]:
        """Names in double braces that the greeting uses."""
        return _VARIABLE.findall(self.greeting)

    def greet(self, variables: dict[str, str]) -> str:
        """The opening words; empty when the caller is to speak first.

        A greeting that names a variable nobody supplied gives way to the greeting without variables.
        """
        if not self.speak_first:
            return ""
        if all(variables.get(name, "").strip() for name in self.greeting_variables):
            return fill(self.greeting, variables)
        return self.greeting_without_variables or plain(self.greeting)


def fill(template: str, variables: dict[str, str]) -> str:
    """The text with every {{name}} replaced by its value, or by nothing."""
    return _VARIABLE.sub(lambda found: variables.get(found[1], "").strip(), template)


def plain(template: str) -> str:
    """The text without its variables, with the gaps they leave closed: "Hi {{name}}, hello" is "Hi, hello"."""
    text = _VARIABLE.sub("", template)
    text = re.sub(r"\s+([,.!?;:])", r"\1", text)
    text = re.sub(r"([,;:])(?=[,.!?;:])", "", text)
    return re.sub(r"\s{2,}", " ", text).strip(" ,;:")
