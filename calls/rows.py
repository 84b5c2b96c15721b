"""Many rows of one table in one statement, without a model instance for each: the recorder writes thousands.
The SQL is standard and made from the model; values are adapted the way Django's own fields do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db import connection, models


def insert(model: type[models.Model], names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Adds rows; `names` are the model's columns in the order of the values."""
    _run(_statement(model._meta.db_table, tuple(names), (), ()), rows)


def upsert(
    model: type[models.Model],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    unique: Sequence[str],
    update: Sequence[str],
) -> None:
    """Adds rows, or updates the columns `update` of those that exist under the columns `unique`."""
    _run(_statement(model._meta.db_table, tuple(names), tuple(unique), tuple(update)), rows)


def update(model: type[models.Model], names: Sequence[str], where: str, rows: Iterable[Sequence[Any]]) -> None:
    """Changes the columns `names` of rows found by `where`, SQL whose places are the last values of each row."""
    quote = connection.ops.quote_name
    changes = ", ".join(f"{quote(name)} = %s" for name in names)
    _run(f"UPDATE {quote(model._meta.db_table)} SET {changes} WHERE {where}", rows)  # noqa: S608 - as below


def moment(at: float | None) -> Any:
    """Seconds since the epoch as this database takes a moment."""
    if at is None:
        return None
    return connection.ops.adapt_datetimefield_value(datetime.fromtimestamp(at, UTC))


def _run(statement: str, rows: Iterable[Sequence[Any]]) -> None:
    rows = list(rows)
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)


@cache
def _statement(table: str, names: tuple[str, ...], unique: tuple[str, ...], update: tuple[str, ...]) -> str:
    quote = connection.ops.quote_name
    columns = ", ".join(quote(name) for name in names)
    places = ", ".join("%s" for _ in names)
    added = f"INSERT INTO {quote(table)} ({columns}) VALUES ({places})"  # noqa: S608 - names are the models' own
    if not unique:
        return added
    key = ", ".join(quote(name) for name in unique)
    changes = ", ".join(f"{quote(name)} = EXCLUDED.{quote(name)}" for name in update)
    return f"{added} ON CONFLICT ({key}) DO UPDATE SET {changes}"
