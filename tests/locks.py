"""Taking a server's tables away from it, as another program might that is busy with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from tests.servers import Daphne

TABLES = "calls_call, calls_turn, calls_utterance, calls_event, agents_agent, agents_connectionkey"


@contextmanager
def locked(server: Daphne) -> Iterator[None]:
    """Nobody else writes as long as this lasts; on PostgreSQL nobody reads either."""
    if server.database_url.startswith("sqlite"):
        path = server.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
        return
    with closing(psycopg.connect(server.database_url)) as connection:
        connection.execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE")
        yield
