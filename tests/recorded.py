"""The record of a call as the tables of a server's database hold it, in the same Python types on either database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tests.servers import Daphne
from tests.waiting import until

# Writes sooner than a server usually does, so that a test waits less.
SOON = {"RECORD_EVERY_S": "0.02"}

Row = dict[str, Any]

JSON = ("agent_settings", "variables", "metadata", "details", "action", "tool_calls")
BOOLEANS = ("is_test", "protected")


def ended(server: Daphne, call_id: str, attempt: int = 1, sockets: int = 1, within: float = 15) -> Row:
    """The row of a call, once its last socket has ended."""
    wanted = (attempt, sockets, "ended")

    def found() -> list[Row]:
        return [row for row in calls(server, call_id) if pick(row, "attempt", "sockets", "status") == wanted]

    until(found, within)
    return found()[0]


def calls(server: Daphne, call_id: str) -> list[Row]:
    """All calls under an id, by attempt."""
    return _read(server, "SELECT * FROM calls_call WHERE call_id = %s ORDER BY attempt", call_id)


def turns(server: Daphne, call: Row) -> list[Row]:
    return _read(server, "SELECT * FROM calls_turn WHERE call_id = %s ORDER BY number", call["id"])


def utterances(server: Daphne, call: Row) -> list[Row]:
    """With the number of the turn that the words came from as `turn`."""
    return _read(
        server,
        "SELECT u.*, t.number AS turn FROM calls_utterance u LEFT JOIN calls_turn t ON t.id = u.turn_id "
        "WHERE u.call_id = %s ORDER BY u.position",
        call["id"],
    )


def events(server: Daphne, call: Row) -> list[Row]:
    """With the JSON of each as `body`."""
    rows = _read(server, "SELECT * FROM calls_event WHERE call_id = %s ORDER BY id", call["id"])
    return [{**row, "body": json.loads(row["body"])} for row in rows]


def pick(row: Row, *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _read(server: Daphne, sql: str, *parameters: Any) -> list[Row]:
    as_text = server.database_url.startswith("sqlite")
    rows = server.rows(sql, *parameters)
    return [{name: _value(name, value, as_text) for name, value in row.items()} for row in rows]


def _value(name: str, value: Any, as_text: bool) -> Any:
    if name in JSON and as_text and value is not None:
        return json.loads(value)
    if name in BOOLEANS:
        return bool(value)
    if name.endswith("_at") and value is not None:
        moment = datetime.fromisoformat(value) if as_text else value
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return value
