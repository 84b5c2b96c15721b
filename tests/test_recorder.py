"""calls/recorder.py: what is noted is saved, soon, whole and in order, whatever the database does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from agents.settings import AgentSettings
from calls.models import Call, Event, Turn
from calls.notebook import Notebook
from calls.protocol import PingPong, Response, ResponseRequired, Utterance
from calls.recorder import PROCESS, Recorder
from calls.turns import RESPONSE
from calls.turns import Turn as SessionTurn
from tests.live import played

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

LIMIT = 1000


@asynccontextmanager
async def a_recorder(backlog: int = LIMIT) -> AsyncIterator[Recorder]:
    recorder = Recorder(0.01, backlog)
    try:
        yield recorder
    finally:
        await recorder.close()


async def db(work: Callable[[], Any]) -> Any:
    """Queries of the test's own, away from the event loop."""

    def run() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return await asyncio.to_thread(run)


def begin(recorder: Recorder, call_id: str = "c1") -> Notebook:
    """A call whose socket has just come in."""
    book = Notebook(call_id, AgentSettings(), process=PROCESS, backlog=recorder.backlog)
    book.opened(source="100.20.5.228")
    recorder.follow(book)
    return book


def exchange(recorder: Recorder, book: Notebook, number: int) -> None:
    """One question and its answer."""
    book.received(ResponseRequired(number, (Utterance("user", f"Question {number}"),)), "")
    book.asked(SessionTurn(number, RESPONSE))
    book.sent(Response(number, f"Answer {number}.", True), "{}")
    recorder.touch(book)


def end(recorder: Recorder, book: Notebook) -> None:
    book.closed("platform", 1000)
    recorder.release(book)


def answers(call_id: str = "c1") -> list[str]:
    return list(Turn.objects.filter(call__call_id=call_id).order_by("number").values_list("text", flat=True))


@asynccontextmanager
async def refusing() -> AsyncIterator[None]:
    """The database is there and takes no writes, as one that fails over or whose disk is full."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "postgresql":
        refuse = [f'ALTER DATABASE "{name}" SET default_transaction_read_only = on']
        allow = [
            "SET default_transaction_read_only = off",
            f'ALTER DATABASE "{name}" RESET default_transaction_read_only',
        ]
    else:
        refuse = ["ALTER TABLE calls_event RENAME TO calls_away"]
        allow = ["ALTER TABLE calls_away RENAME TO calls_event"]
    await db(lambda: execute(*refuse))
    try:
        yield
    finally:
        await db(lambda: execute(*allow))


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


@played
async def test_what_is_noted_is_saved_within_a_moment() -> None:
    async with a_recorder() as recorder:
        book = begin(recorder)
        exchange(recorder, book, 1)
        assert await recorder.saved(book, 5)
        [call] = await db(lambda: list(Call.objects.all()))
        assert (call.call_id, call.status, call.process, call.turn_count) == ("c1", "live", PROCESS, 1)
        exchange(recorder, book, 2)
        end(recorder, book)
        assert await recorder.saved(book, 5)
        await db(call.refresh_from_db)
        assert (call.status, call.closed_by, call.close_code, call.turn_count) == ("ended", "platform", 1000, 2)
        assert await db(answers) == ["Answer 1.", "Answer 2."]


@played
async def test_closing_saves_what_is_left() -> None:
    recorder = Recorder(60, LIMIT)
    for number in range(50):
        book = begin(recorder, f"c{number}")
        exchange(recorder, book, 1)
        end(recorder, book)
    assert await recorder.close(10)
    assert await db(Call.objects.ended().count) == 50
    assert await db(Turn.objects.count) == 50


@played
async def test_while_the_database_refuses_everything_is_kept_and_saved_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_recorder() as recorder:
        async with refusing():
            books = [begin(recorder, f"c{number}") for number in range(5)]
            for number in range(1, 11):
                for book in books:
                    exchange(recorder, book, number)
                assert not await recorder.saved(books[0], 0.05)
            end(recorder, books[0])
            assert await db(Call.objects.count) == 0
        assert [await recorder.saved(book, 10) for book in books] == [True] * 5
    assert await db(lambda: answers("c3")) == [f"Answer {number}." for number in range(1, 11)]
    kinds = await db(
        lambda: list(Event.objects.filter(call__call_id="c0").order_by("id").values_list("kind", flat=True))
    )
    assert kinds == ["socket opened", *["response_required", "response"] * 10, "socket closed"]
    assert await db(Call.objects.live().count) == 4
    assert recorder.backlog.waiting == 0
    said = [record.message.partition(":")[0] for record in caplog.records if record.name == "calls.recorder"]
    assert said[0] == "The database does not take the record, calls go on and it is kept"
    assert len(said) == 2


@played
async def test_events_over_the_limit_are_counted_and_nothing_else_is_lost() -> None:
    async with a_recorder(backlog=20) as recorder:
        async with refusing():
            book = begin(recorder)
            for number in range(1, 31):
                exchange(recorder, book, number)
            assert not await recorder.saved(book, 0.05)
        assert await recorder.saved(book, 10)
        exchange(recorder, book, 31)
        assert await recorder.saved(book, 10)
    call = await db(Call.objects.get)
    assert (call.events_dropped, await db(Event.objects.count)) == (41, 22)
    assert await db(answers) == [f"Answer {number}." for number in range(1, 32)]


@played
async def test_a_call_that_no_table_takes_costs_no_other_its_record(caplog: pytest.LogCaptureFixture) -> None:
    async with a_recorder() as recorder:
        books = [begin(recorder, f"c{number}") for number in range(3)]
        for book in books:
            book.asked(SessionTurn(1, RESPONSE))
        books[1].used(SessionTurn(1, RESPONSE), "model", 2**70, 0)
        for book in books:
            exchange(recorder, book, 2)
        assert [await recorder.saved(book, 5) for book in books] == [True] * 3
        exchange(recorder, books[1], 3)
        assert await recorder.saved(books[1], 5)
    assert await db(lambda: [answers(f"c{number}")[1:] for number in (0, 2)]) == [["Answer 2."]] * 2
    assert await db(lambda: answers("c1")) == ["Answer 3."]
    lost = [record.message for record in caplog.records if "this part of its record is lost" in record.message]
    assert lost == ["Call c1 cannot be recorded; this part of its record is lost"]
    assert recorder.backlog.waiting == 0


@played
async def test_closing_gives_up_in_time_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(0.01, LIMIT)
    async with refusing():
        for number in range(3):
            begin(recorder, f"c{number}")
        assert not await recorder.close(0.5)
    assert "The database did not take the record of 3 calls in time; it is lost" in caplog.messages


@played
async def test_a_call_deleted_while_it_is_live_stays_deleted_and_disturbs_nobody() -> None:
    async with a_recorder() as recorder:
        deleted, other = begin(recorder, "deleted"), begin(recorder, "other")
        exchange(recorder, deleted, 1)
        assert await recorder.saved(deleted, 5)
        await db(lambda: Call.objects.filter(call_id="deleted").delete())
        for book in (deleted, other):
            exchange(recorder, book, 2)
            end(recorder, book)
            assert await recorder.saved(book, 5)
    assert await db(lambda: list(Call.objects.values_list("call_id", "status"))) == [("other", "ended")]


@played
async def test_a_late_end_does_not_undo_what_a_newer_socket_elsewhere_wrote() -> None:
    async with a_recorder() as recorder:
        book = begin(recorder)
        exchange(recorder, book, 1)
        assert await recorder.saved(book, 5)
        taken = {"sockets": 2, "process": "elsewhere:1:x", "turn_count": 7, "seen_at": timezone.now()}
        await db(lambda: Call.objects.update(**taken))
        end(recorder, book)
        assert await recorder.saved(book, 5)
    call = await db(Call.objects.get)
    assert (call.status, call.sockets, call.process, call.turn_count) == ("live", 2, "elsewhere:1:x", 7)


@played
async def test_pings_are_counted_and_never_stored() -> None:
    async with a_recorder() as recorder:
        book = begin(recorder)
        for stamp in range(100):
            book.received(PingPong(stamp), "")
            recorder.touch(book)
        end(recorder, book)
        assert await recorder.saved(book, 5)
    assert (await db(Call.objects.get)).ping_count == 100
    assert await db(lambda: set(Event.objects.values_list("kind", flat=True))) == {"socket opened", "socket closed"}


@played
async def test_a_batch_takes_no_more_statements_for_more_calls_of_the_same_kind() -> None:
    """The time a batch takes is the time that a crash may cost."""
    taken = []
    for count in (5, 50):
        async with a_recorder() as recorder:
            books = [begin(recorder, f"{count}-{number}") for number in range(count)]
            assert [await recorder.saved(book, 10) for book in books] == [True] * count
            statements: list[str] = []
            await recorder._thread.run(lambda seen=statements: connection.execute_wrappers.append(counting(seen)))
            for book in books:
                exchange(recorder, book, 1)
            assert [await recorder.saved(book, 10) for book in books] == [True] * count
            await recorder._thread.run(connection.execute_wrappers.clear)
            taken.append(len([sql for sql in statements if sql.startswith(("INSERT", "SELECT"))]))
    assert taken[0] == taken[1]


def counting(seen: list[str]) -> Any:
    def wrapper(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    return wrapper
