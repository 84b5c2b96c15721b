"""Reads back what a call left behind, for its next socket: rules in session.Memory, sums in notebook.Past.
Synchronous queries only; desk.py runs them beside the event loop."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
from django.db.models import Count
from django.utils import timezone
from msgspec import Raw, Struct

from agents.actions import Action
from agents.settings import AgentSettings
from calls.lenient import call_object
from calls.models import Call, Turn, Utterance
from calls.notes import Counters, Past, TurnNote, UtteranceNote
from calls.protocol import Utterance as Said
from calls.turns import BEGIN, INTERRUPT, Memory
from calls.turns import Turn as SessionTurn

log = logging.getLogger("calls.recall")

# The platform dials again within seconds. After this long a repeated id is somebody testing: a new call.
REDIAL_WITHIN_S = 60.0
# A platform that misses our keepalive closes the socket itself before it dials again.
REDIAL_AFTER_CLOSE_S = 15.0


class Recollection(Struct, frozen=True):
    """A call that was here before. `memory` is None when this is a new call under an old id."""

    attempts: int
    memory: Memory | None = None
    past: Past | None = None


def recall(call_ids: Collection[str]) -> dict[str, Recollection]:
    """What is known of these calls; those never seen are left out. One query when all are new."""
    newest: dict[str, Call] = {}
    for call in Call.objects.filter(call_id__in=call_ids).order_by("attempt"):
        newest[call.call_id] = call
    return {call_id: _recollect_safely(call) for call_id, call in newest.items()}


def live_elsewhere(process: str) -> dict[int, int]:
    """How many calls of each agent are live in other processes than this one, which knows its own better."""
    elsewhere = Call.objects.fresh().filter(agent__isnull=False).exclude(process=process)
    return dict(elsewhere.values_list("agent").annotate(Count("pk")).order_by())


def is_redial(closed_by: str, keepalive: bool, since_s: float) -> bool:
    """Whether another socket, so long after the last one ended, is the same call and not an old id used again."""
    match closed_by:
        case Call.ClosedBy.SERVER:
            return False  # the platform ends a call that the server closes (protocol.md 1.6)
        case Call.ClosedBy.PLATFORM:
            return keepalive and since_s < REDIAL_AFTER_CLOSE_S
    return since_s < REDIAL_WITHIN_S


def _goes_on(call: Call) -> bool:
    if call.ended_at is None:
        return True
    since = timezone.now() - call.ended_at
    return is_redial(call.closed_by, bool(call.agent_settings.get("auto_reconnect")), since.total_seconds())


def _recollect_safely(call: Call) -> Recollection:
    """A row that cannot be read back costs that call its memory, not the others theirs."""
    try:
        return _recollect(call)
    except (msgspec.MsgspecError, ValueError, TypeError):
        log.exception("Call %s cannot be recalled; its next socket begins anew", call.call_id)
        return Recollection(call.attempt)


def _recollect(call: Call) -> Recollection:
    if not _goes_on(call):
        return Recollection(call.attempt)
    turns = list(Turn.objects.filter(call=call).order_by("number"))
    numbers = {turn.pk: turn.number for turn in turns}
    heard = [
        _heard(row, numbers.get(row.turn_id or 0)) for row in Utterance.objects.filter(call=call).order_by("position")
    ]
    past = Past(
        call.pk,
        call.key_id,
        call.attempt,
        call.sockets,
        call.started_at.timestamp(),
        [_note(turn) for turn in turns],
        {turn.number: turn.pk for turn in turns},
        heard,
        _counters(call),
    )
    return Recollection(call.attempt, _memory(call, turns, heard), past)


def _memory(call: Call, turns: list[Turn], heard: list[UtteranceNote]) -> Memory:
    asked = [turn for turn in turns if turn.kind not in (BEGIN, INTERRUPT)]
    last_action = next((turn for turn in reversed(turns) if turn.outcome == Turn.Outcome.COMPLETED), None)
    return Memory(
        settings=msgspec.convert(_known(call.agent_settings), AgentSettings),
        call=call_object(call.details) if call.details else None,
        greeted=bool(turns),
        newest=_session_turn(asked[-1], heard) if asked and asked[-1] is turns[-1] else None,
        interrupts=sum(turn.kind == INTERRUPT for turn in turns),
        pending_action=_action(last_action) if last_action else None,
    )


def _known(stored: dict[str, Any]) -> dict[str, Any]:
    """The settings a call started with, as far as this version of the program still has them."""
    return {name: value for name, value in stored.items() if name in AgentSettings.__struct_fields__}


def _session_turn(turn: Turn, heard: list[UtteranceNote]) -> SessionTurn:
    unfinished = turn.outcome in (Turn.Outcome.OPEN, Turn.Outcome.CUT_OFF)
    return SessionTurn(
        response_id=turn.response_id,
        kind=turn.kind,
        transcript=tuple(note.said for note in heard),
        text=turn.text,
        complete=not unfinished,
    )


def _action(turn: Turn) -> Action | None:
    return None if turn.action is None else msgspec.convert(turn.action, Action)


def _note(turn: Turn) -> TurnNote:
    return TurnNote(
        number=turn.number,
        socket=turn.socket,
        response_id=turn.response_id,
        kind=turn.kind,
        asked=turn.asked_at.timestamp(),
        first_text=_at(turn.first_text_at),
        first_sentence=_at(turn.first_sentence_at),
        done=_at(turn.done_at),
        text=turn.text,
        heard=turn.heard,
        outcome=turn.outcome,
        protected=turn.protected,
        action=_action(turn),
        model=turn.model,
        input_tokens=turn.input_tokens,
        output_tokens=turn.output_tokens,
        tool_calls=turn.tool_calls,
        error=turn.error,
    )


def _at(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _heard(row: Utterance, turn: int | None) -> UtteranceNote:
    words = [{"start": row.start_s, "end": row.end_s}] if row.start_s is not None else []
    said = Said(row.role, row.text, Raw(msgspec.json.encode(words)))
    return UtteranceNote(row.position, said, row.first_seen_at.timestamp(), row.changed_at.timestamp(), turn)


def _counters(call: Call) -> Counters:
    return Counters(
        pings=call.ping_count,
        ping_gap_ms=call.ping_gap_ms,
        odd_frames=call.odd_frames,
        events_dropped=call.events_dropped,
    )
