"""Pages of notebooks as rows: one call, one transaction, one function of the recorder's own thread.
Nothing else writes to a live call. Reading a call back for its next socket is recall.py."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db import Error, InterfaceError, InternalError, OperationalError, transaction

from agents.models import Agent, ConnectionKey
from calls.models import Call, Event, Turn, Utterance
from calls.notebook import Notebook, Page
from calls.notes import Ending, Identity, TurnNote, UtteranceNote
from calls.protocol import CallObject
from calls.rows import insert, moment, update, upsert

log = logging.getLogger("calls.ledger")

TURN_CHANGES = (
    "outcome", "first_text_at", "first_sentence_at", "done_at", "text", "heard", "protected", "action",
    "model", "input_tokens", "output_tokens", "tool_calls", "error",
)  # fmt: skip
TURN_COLUMNS = (
    "call_id", "number", "socket", "response_id", "kind", "outcome", "asked_at", *TURN_CHANGES[1:],
)  # fmt: skip
UTTERANCE_CHANGES = ("role", "text", "start_s", "end_s", "first_seen_at", "changed_at", "turn_id")
UTTERANCE_COLUMNS = ("call_id", "position", *UTTERANCE_CHANGES)


def write(pages: Sequence[Page]) -> list[Page]:
    """Writes all pages in one transaction and returns those that can never be written.

    Raises OperationalError (or another Error of the connection) when the database is not there:
    then nothing was written. A page that the database itself refuses is set apart, so that one
    poisoned call does not keep the others from being saved.
    """
    try:
        with _all_or_nothing(pages):
            _write_all(pages)
    except (OperationalError, InterfaceError, InternalError):
        raise
    except (Error, ValueError, TypeError, ArithmeticError):
        if len(pages) == 1:
            log.exception("Call %s cannot be recorded; this part of its record is lost", pages[0].notebook.call_id)
            return list(pages)
        return [bad for page in pages for bad in write([page])]
    for page in pages:
        page.saved = True
    return []


@contextmanager
def _all_or_nothing(pages: Sequence[Page]) -> Iterator[None]:
    """A transaction. Keys that rows got in one that is rolled back are nobody's, or soon another call's."""
    new = [page.notebook for page in pages if page.notebook.pk is None]
    try:
        with transaction.atomic():
            yield
    except BaseException:
        for book in new:
            book.pk = None
        for page in pages:
            page.notebook.turn_pks.clear()
        raise


def alive(process: str) -> None:
    """Says for all calls of this process that they are alive."""
    Call.objects.live().filter(process=process).update(seen_at=datetime.now(UTC))


def _write_all(pages: Sequence[Page]) -> None:
    new = _open_new([page for page in pages if page.notebook.pk is None])
    newest = dict(Call.objects.filter(pk__in=[_pk(page.notebook) for page in pages]).values_list("pk", "sockets"))
    # a call that was deleted meanwhile has nowhere to be written to
    pages = [page for page in pages if _pk(page.notebook) in newest]
    _write_turns(pages)
    # a socket that another process has taken the call over from may not undo what that one wrote
    current = [page for page in pages if newest[_pk(page.notebook)] <= page.socket]
    _write_utterances(current)
    _write_calls(current, new)
    _write_events(pages)


# ---------------------------------------------------------------- calls


def _open_new(pages: list[Page]) -> set[int]:
    """Rows for calls that have none yet; the keys of those that are really new, and say all there is to say."""
    if not pages:
        return set()
    new = set()
    books = [page.notebook for page in pages]
    keys = {book.key for book in books if book.key}
    ConnectionKey.objects.filter(pk__in=keys).update(last_used_at=datetime.now(UTC))
    agents = set(Agent.objects.filter(pk__in={book.settings.pk for book in books}).values_list("pk", flat=True))
    keys = set(ConnectionKey.objects.filter(pk__in=keys).values_list("pk", flat=True))
    for page in pages:
        book = page.notebook
        call, is_new = Call.objects.get_or_create(
            call_id=book.call_id,
            attempt=book.attempt,
            defaults={
                "seen_at": datetime.now(UTC),
                **(_identity(page, page.identity) if page.identity else {}),
                "agent_id": book.settings.pk if book.settings.pk in agents else None,
                "key_id": book.key if book.key in keys else None,
                "started_at": _moment(book.started),
                "is_test": book.is_test,
            },
        )
        book.pk = call.pk
        if is_new:
            new.add(call.pk)
    return new


def _pk(book: Notebook) -> int:
    """The key of a call that has been opened."""
    assert book.pk is not None
    return book.pk


def _write_calls(pages: Iterable[Page], new: set[int]) -> None:
    for page in pages:
        if page.identity is not None and page.notebook.pk not in new:
            # details may have named another agent, and an agent may have been deleted since
            agent = Agent.objects.filter(pk=page.identity.settings.pk or 0).values_list("pk", flat=True).first()
            row = Call.objects.filter(pk=_pk(page.notebook), sockets__lte=page.socket)
            row.update(**_identity(page, page.identity), agent_id=agent)
    sums = [(page, page.sums) for page in pages if page.sums is not None]
    if sums:
        rows = [(*found.values(), _pk(page.notebook), page.socket) for page, found in sums]
        update(Call, tuple(sums[0][1]), "id = %s AND sockets <= %s", rows)
    for page in pages:
        if page.ending is not None:
            _end(page, page.ending)


def _identity(page: Page, identity: Identity) -> dict[str, Any]:
    """What a call's row says besides sums: which socket of which process has it, and what its details told."""
    fields: dict[str, Any] = {
        "sockets": page.socket,
        "process": page.notebook.process,
        "seen_at": datetime.now(UTC),
        "agent_settings": msgspec.to_builtins(identity.settings),
    }
    if identity.live or page.ending is not None:  # opened again, and perhaps ended again: _end has that word
        fields |= {"status": Call.Status.LIVE, "ended_at": None, "duration_s": None}
        fields |= {"close_code": None, "closed_by": "", "close_reason": ""}
    return fields if identity.call is None else fields | _details(identity.details, identity.call)


def _details(details: dict[str, Any], call: CallObject) -> dict[str, Any]:
    return {
        "call_type": _fits(call.call_type, 40),
        "direction": _fits(call.direction, 40),
        "from_number": _fits(call.from_number, 64),
        "to_number": _fits(call.to_number, 64),
        "variables": _clean(call.variables),
        "metadata": _clean(call.metadata),
        "details": _clean(details),
    }


def _end(page: Page, ending: Ending) -> None:
    call = Call(pk=_pk(page.notebook), started_at=_moment(page.notebook.started))
    call.end(_moment(ending.at), by=ending.by, code=ending.code, reason=ending.reason, socket=page.socket)


# ---------------------------------------------------------------- turns, utterances, events


def _write_turns(pages: Iterable[Page]) -> None:
    rows = [_turn(page.notebook, note) for page in pages for note in page.turns]
    upsert(Turn, TURN_COLUMNS, rows, unique=("call_id", "number"), update=TURN_CHANGES)


def _turn(book: Notebook, note: TurnNote) -> tuple[Any, ...]:
    return (
        book.pk,
        note.number,
        note.socket,
        note.response_id,
        note.kind,
        note.outcome,
        moment(note.asked),
        moment(note.first_text),
        moment(note.first_sentence),
        moment(note.done),
        _text(note.text),
        _text(note.heard),
        note.protected,
        None if note.action is None else _json(note.action),
        _fits(note.model, 100),
        note.input_tokens,
        note.output_tokens,
        _json(note.tool_calls),
        _text(note.error),
    )


def _write_utterances(pages: Iterable[Page]) -> None:
    for page in pages:
        if page.length is not None:
            Utterance.objects.filter(call=_pk(page.notebook), position__gte=page.length).delete()
    _learn_turns(pages)
    rows = [_utterance(page.notebook, note) for page in pages for note in page.utterances]
    upsert(Utterance, UTTERANCE_COLUMNS, rows, unique=("call_id", "position"), update=UTTERANCE_CHANGES)


def _learn_turns(pages: Iterable[Page]) -> None:
    """The keys of turns that utterances point to, which an upsert does not tell."""
    books = {
        _pk(page.notebook): page.notebook
        for page in pages
        if any(note.turn is not None and note.turn not in page.notebook.turn_pks for note in page.utterances)
    }
    if not books:
        return
    for pk, call, number in Turn.objects.filter(call__in=books).order_by().values_list("pk", "call_id", "number"):
        books[call].turn_pks[number] = pk


def _utterance(book: Notebook, note: UtteranceNote) -> tuple[Any, ...]:
    start, end = note.said.span()
    return (
        book.pk,
        note.position,
        _fits(note.said.role, 40),
        _text(note.said.content),
        start,
        end,
        moment(note.first_seen),
        moment(note.changed),
        book.turn_pks.get(note.turn) if note.turn is not None else None,
    )


def _write_events(pages: Iterable[Page]) -> None:
    insert(
        Event,
        ("call_id", "at", "direction", "kind", "body"),
        [
            (page.notebook.pk, moment(note.at), note.direction, _fits(note.kind, 60), _text(note.body))
            for page in pages
            for note in page.events
        ],
    )


# ---------------------------------------------------------------- values that every database takes


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _json(value: Any) -> str:
    return _text(msgspec.json.encode(value).decode().replace("\\u0000", "\\ufffd"))


def _text(text: str) -> str:
    """PostgreSQL takes no NUL in text, and nothing takes half a surrogate pair."""
    text = text.replace("\x00", "\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _fits(text: str, width: int) -> str:
    return _text(text)[:width]


def _clean(value: Any) -> Any:
    """The same for the texts inside a JSON value."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    if isinstance(value, dict):
        return {_text(name): _clean(entry) for name, entry in value.items()}
    return value
