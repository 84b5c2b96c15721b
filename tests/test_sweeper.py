"""calls/sweeper.py: calls whose process is gone are ended once, as of when they were last alive; no others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from calls.models import GONE_AFTER, Call, Turn
from calls.sweeper import sweep
from tests.cast import make_call

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

HERE = f"{socket.gethostname()[:60]}:{os.getpid()}:0a1b2c3d"
ELSEWHERE = "another-machine:4711:0a1b2c3d"
LONG_AGO = GONE_AFTER + timedelta(seconds=5)


def live(silent_for: timedelta = timedelta(0), **fields: Any) -> Call:
    """A live call whose process was last heard of so long ago."""
    now = timezone.now()
    given = {"status": "live", "process": HERE, "started_at": now - timedelta(hours=1), "seen_at": now - silent_for}
    return make_call(**{**given, **fields})


@pytest.fixture(scope="module")
def nobody() -> str:
    """The name of a process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{socket.gethostname()[:60]}:{process.pid}:0a1b2c3d"


def state(call: Call) -> tuple[str, str, datetime | None]:
    call.refresh_from_db()
    return call.status, call.closed_by, call.ended_at


def test_a_call_whose_process_has_fallen_silent_is_ended_as_of_when_it_was_last_alive() -> None:
    call = live(LONG_AGO, process=ELSEWHERE)
    assert sweep() == 1
    assert state(call) == ("ended", "sweeper", call.seen_at)
    assert (call.close_code, call.close_reason) == (None, "its process is gone")
    assert call.duration_s == (call.seen_at - call.started_at).total_seconds()


def test_an_unfinished_turn_is_cut_off_and_the_others_stay() -> None:
    call = live(LONG_AGO)
    for number, outcome in enumerate(("completed", "superseded", "open"), 1):
        Turn.objects.create(
            call=call, number=number, response_id=number, kind="response", outcome=outcome, asked_at=call.started_at
        )
    sweep()
    found = list(Turn.objects.filter(call=call).values_list("outcome", "done_at"))
    assert found == [("completed", None), ("superseded", None), ("cut_off", call.seen_at)]


def test_calls_that_are_alive_are_left_alone() -> None:
    calls = [live(), live(GONE_AFTER - timedelta(seconds=5)), live(process=ELSEWHERE)]
    assert sweep() == 0
    assert [state(call) for call in calls] == [("live", "", None)] * 3


def test_a_call_of_this_machine_need_not_grow_old_when_its_process_does_not_exist(nobody: str) -> None:
    call = live(timedelta(seconds=3), process=nobody)
    assert sweep() == 1
    assert state(call)[:2] == ("ended", "sweeper")


@pytest.mark.parametrize(
    "process", ["", "x", "{here}", "{here}:", "{here}:abc:d", "{here}:1:x", "{here}:99999999999:x"]
)
def test_a_process_that_cannot_be_told_from_a_running_one_has_its_time(process: str) -> None:
    call = live(timedelta(seconds=3), process=process.format(here=socket.gethostname()[:60]))
    assert sweep() == 0
    assert state(call)[0] == "live"


def test_a_call_that_has_just_begun_has_a_moment(nobody: str) -> None:
    """Its process may have written the row before the operating system knows it by that number here."""
    call = live(process=nobody)
    assert sweep() == 0
    assert state(call)[0] == "live"


def test_an_ended_call_keeps_its_end() -> None:
    call = make_call(seen_at=timezone.now() - LONG_AGO)
    before = state(call)
    assert sweep() == 0
    assert state(call) == before


def test_many_are_ended_and_counted() -> None:
    for _ in range(30):
        live(LONG_AGO)
    live()
    assert sweep() == 30
    assert sweep() == 0
    assert Call.objects.live().count() == 1


def test_several_sweepers_at_once_end_each_call_once() -> None:
    for _ in range(20):
        live(LONG_AGO)
    assert sum(together(*[sweep] * 4)) == 20


def test_only_one_of_sweeper_and_server_ends_a_call() -> None:
    now = timezone.now()
    for _ in range(10):
        call = live(LONG_AGO)
        swept, ended = together(sweep, lambda call=call: call.end(now, by="platform", code=1000, socket=1))
        assert swept + ended == 1
        assert state(call)[1] == ("platform" if ended else "sweeper")


def test_a_call_that_another_process_has_taken_over_meanwhile_goes_on() -> None:
    call = live(LONG_AGO)
    stale = Call.objects.get(pk=call.pk)
    Call.objects.filter(pk=call.pk).update(sockets=2, process=ELSEWHERE, seen_at=timezone.now())
    assert not stale.end(stale.seen_at, by="sweeper", socket=stale.sockets)
    assert sweep() == 0
    assert state(call)[0] == "live"


def test_the_command_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    live(LONG_AGO)
    call_command("sweep_calls")
    assert capsys.readouterr().out == "1 calls closed\n"


def together(*works: Any) -> list[Any]:
    """What each returns; all begin at the same moment, each on a connection of its own."""
    gate = Barrier(len(works))

    def run(work: Any) -> Any:
        try:
            gate.wait()
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))
