"""A knock that is let in becomes a session and a notebook: new ones, or those of the call's last socket.
Decides with gate.py; touches no socket and waits for nothing."""

from __future__ import annotations

import time

from django.conf import settings
from msgspec import Struct

from calls import gate, live, recorder
from calls.desk import Known
from calls.gate import Admitted, Counts, Knock, Refused, Rules
from calls.notebook import Notebook
from calls.recall import Recollection, is_redial
from calls.session import Session
from calls.turns import BadFrames, Memory


class Arrival(Struct):
    """What a socket that came in starts with."""

    session: Session
    notebook: Notebook
    source: str


def arrive(knock: Knock, known: Known, rules: Rules) -> Arrival | Refused:
    """Lets a socket in or not; an older socket of the same call here is detached."""
    back = _back(knock.call_id, known.recollection)
    decision = gate.decide(knock, rules, known.roster, _counts(known), known_call=back is not None)
    if isinstance(decision, Refused):
        return decision
    if back is not None and not _may_take_up(back, decision):
        if live.find(knock.call_id) is not None:
            return Refused("call id", "a live call that came in with another key has this id")
        back = None
        decision = gate.decide(knock, rules, known.roster, _counts(known))
        if isinstance(decision, Refused):
            return decision
    before = live.find(knock.call_id)
    if before is not None:
        old = before.detach()
        back = _Back(old.detach(), before.notebook.key, before.notebook)
    session = Session(
        decision.agent,
        agents=decision.others,
        memory=back.memory if back else None,
        bad_frames=bad_frames(),
    )
    notebook = back.notebook if back and back.notebook else _notebook(knock, decision, known.recollection, back)
    return Arrival(session, notebook, _said(knock))


class _Back(Struct, frozen=True):
    """A call that was here before: what it remembers, and its notes if they are in this process."""

    memory: Memory
    key: int | None
    notebook: Notebook | None = None


def _may_take_up(back: _Back, admitted: Admitted) -> bool:
    """The platform dials the same URL again: with a key of the same agent, or without one as before."""
    if back.key is None or admitted.key is None:
        return back.key is admitted.key
    return back.memory.settings.pk == admitted.agent.pk


def _back(call_id: str, recollection: Recollection | None) -> _Back | None:
    """The earlier part of a call, from this process or from the database, whichever is newer."""
    line = live.find(call_id)
    if line is not None:
        return _Back(line.session.memory(), line.notebook.key, line.notebook)
    saved = recollection.past.sockets if recollection and recollection.past else 0
    parting = live.parting(call_id)
    if parting is not None and parting.notebook.socket >= saved and _is_redial(parting):
        return _Back(parting.memory, parting.notebook.key, parting.notebook)
    if recollection is not None and recollection.memory is not None and recollection.past is not None:
        return _Back(recollection.memory, recollection.past.key)
    return None


def _is_redial(parting: live.Parting) -> bool:
    ending, keepalive = parting.notebook.ending, parting.memory.settings.auto_reconnect
    return ending is not None and is_redial(ending.by, keepalive, time.monotonic() - parting.at)


def _attempts(call_id: str, recollection: Recollection | None) -> int:
    """How many calls have come under this id, saved ones and those just ended here."""
    parting = live.parting(call_id)
    here = parting.notebook.attempt if parting else 0
    return max(here, recollection.attempts if recollection else 0)


def _notebook(knock: Knock, admitted: Admitted, recollection: Recollection | None, back: _Back | None) -> Notebook:
    return Notebook(
        knock.call_id,
        back.memory.settings if back else admitted.agent,
        process=recorder.PROCESS,
        backlog=recorder.current().backlog,
        key=admitted.key,
        keep_events=settings.RECORD_EVENTS,
        past=recollection.past if back and recollection else None,
        attempt=_attempts(knock.call_id, recollection) + 1,
    )


def _counts(known: Known) -> Counts:
    """Calls of other processes are counted by the database, those of this process here."""
    mine, elsewhere = live.by_agent(), known.live_elsewhere
    return Counts(live.here(), {pk: mine.get(pk, 0) + elsewhere.get(pk, 0) for pk in {*mine, *elsewhere}})


def _said(knock: Knock) -> str:
    return str(knock.source) if not isinstance(knock.source, gate.Local | gate.Unknown) else "this machine"


def bad_frames() -> BadFrames:
    """What LLM_BAD_FRAMES asks for."""
    if settings.LLM_BAD_FRAMES == "ignore":
        return BadFrames(ignore_text=True)
    return BadFrames(code=int(settings.LLM_BAD_FRAMES))
