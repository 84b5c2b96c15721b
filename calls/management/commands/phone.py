"""The arguments of the pretend platform, and what it exits with; calls by hand are in calls/phone/terminal.py."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.core.management.color import no_style

from calls.phone import DeviationError, Phone, PhoneError, Player, ScriptError, address, call_id_of, read_script
from calls.phone.screen import Screen
from calls.phone.terminal import CONFORMANT, DEVIATED, NOT_CONNECTED, advice, converse, is_interactive

URL = "ws://127.0.0.1:8000/llm-websocket"


def variable(text: str) -> tuple[str, str]:
    """A dynamic variable, written name=value."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value


def call_details(options: dict[str, Any]) -> dict[str, Any]:
    """What the platform knows of the call, as far as it was given."""
    given = {"agent_id": options["agent_id"], "from_number": options["from_number"]}
    details: dict[str, Any] = {name: value for name, value in given.items() if value}
    if options["variables"]:
        details["retell_llm_dynamic_variables"] = dict(options["variables"])
    return details


class Command(BaseCommand):
    """Needs neither the database nor the project's own configuration to be sound."""

    help = "Calls a server as the platform does. Type what the caller says; /help lists what else can be done."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("url", nargs="?", default=URL, help=f"as configured at the platform; default {URL}")
        parser.add_argument("--key", help="the connection key, if it is not in the URL")
        parser.add_argument("--call-id", help="default: a new one")
        parser.add_argument(
            "--variable",
            dest="variables",
            action="append",
            type=variable,
            metavar="NAME=VALUE",
            help="a dynamic variable of the call; may be given several times",
        )
        parser.add_argument("--from", dest="from_number", metavar="NUMBER", help="the caller's number")
        parser.add_argument("--agent-id", help="the platform's id of the agent that is called")
        parser.add_argument("--script", type=Path, metavar="FILE", help="play a session instead (docs/phone.md)")
        parser.add_argument("--speed", type=float, help="of the script: 1 keeps its times; default: no pauses")
        parser.add_argument("--timeout", type=float, default=10.0, help="seconds to wait for a reply; default 10")
        parser.add_argument("--plain", action="store_true", help="no colours")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exits with 0 when all was well, 1 when the server deviated, 2 when it could not be called."""
        if options["plain"]:
            self.style = no_style()
        code = self._code(options)
        if code:
            sys.exit(code)

    def _code(self, options: dict[str, Any]) -> int:
        try:
            return asyncio.run(self._call(options))
        except KeyboardInterrupt:
            return CONFORMANT
        except DeviationError as error:
            self.stderr.write(str(error))
            return DEVIATED
        except PhoneError as error:
            self.stderr.write(advice(error))
        except (ScriptError, OSError) as error:
            self.stderr.write(f"{options['script']} cannot be played: {error}")
        return NOT_CONNECTED

    async def _call(self, options: dict[str, Any]) -> int:
        url = address(options["url"], *([options["key"]] if options["key"] else []))
        if options["script"]:
            return await self._play(url, options)
        return await converse(
            Screen(self.stdout, self.style, interactive=is_interactive()),
            url,
            options["call_id"],
            details=call_details(options),
            timeout=options["timeout"],
            shows_frames=options["verbosity"] > 1,
        )

    async def _play(self, url: str, options: dict[str, Any]) -> int:
        lines = read_script(options["script"].read_text())
        phone = Phone(url, options["call_id"] or call_id_of(lines), details=call_details(options))
        player = Player(phone, lines, speed=options["speed"], timeout=options["timeout"])
        await player.play()
        self.stdout.write(f"conformant: {len(lines)} lines, {player.compared} frames of the server as written")
        return CONFORMANT
