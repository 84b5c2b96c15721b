"""A call as rows in time: who said what, what each turn was asked, sent, heard and dropped, reconnects and
the close. Given the rows of the tables; queries and writes nothing."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from typing import Any

from django.utils import timezone
from msgspec import Struct

from calls import words
from calls.flags import closed_oddly
from calls.models import Call, Event, Turn, Utterance
from calls.transcript import unheard

NOT_HEARD = "not heard"

WHO = {"user": "Caller", "agent": "Agent", "transfer_target": "Transfer target"}
ASKED = {
    Turn.Kind.BEGIN: "Greeting",
    Turn.Kind.RESPONSE: "Reply asked for",
    Turn.Kind.REMINDER: "Reminder asked for: the caller had gone quiet",
    Turn.Kind.INTERRUPT: "Spoke up unasked",
}
TONES = {
    Turn.Outcome.COMPLETED: "good",
    Turn.Outcome.OPEN: "info",
    Turn.Outcome.SUPERSEDED: "",
    Turn.Outcome.CUT_OFF: "warn",
    Turn.Outcome.FELL_BACK: "warn",
    Turn.Outcome.FAILED: "bad",
    Turn.Outcome.TIMED_OUT: "bad",
}


class Row(Struct, frozen=True, kw_only=True):
    """One entry of the timeline: a clock time, and the same counted from the call's start."""

    shape: str
    clock: str
    offset: str
    sort: tuple[datetime, int]


class SaidRow(Row, frozen=True, kw_only=True):
    """Words in the transcript that are not an answer of a turn: mostly the caller's."""

    who: str
    role: str
    text: str


class ToolRow(Struct, frozen=True):
    """A tool that a turn used; `state` is empty while it is not known how it went."""

    name: str
    arguments: str
    result: str
    state: str
    took: str


class TurnRow(Row, frozen=True, kw_only=True):
    """A turn: `heard` and `dropped` together are what was sent, unless it was `heard_as` something else."""

    number: int
    response_id: int
    socket: int
    asked: str
    outcome: str
    tone: str
    heard: str
    dropped: str
    dropped_why: str
    is_certain: bool
    heard_as: str
    timings: list[tuple[str, str]]
    action: str
    protected: bool
    cost: str
    tools: list[ToolRow]
    error: str


class NoteRow(Row, frozen=True, kw_only=True):
    """Something that happened to the call: a socket came or went, a frame was odd."""

    title: str
    facts: str
    tone: str


def timeline(call: Call, turns: list[Turn], said: list[Utterance], notes: list[Event]) -> list[Row]:
    """All rows in the order things happened; the transcript keeps its own order whatever its times say."""
    last = max((turn.number for turn in turns if turn.text), default=0)
    rows: list[Row] = [
        *_said(call, said),
        *(_turn(call, turn, is_last=turn.number == last) for turn in turns),
        *(_note(call, note) for note in notes if not _is_the_end(call, note)),
    ]
    if not notes:
        rows.extend(_reconnects(call, turns))
    if call.ended_at:
        rows.append(_end(call, call.ended_at))
    return sorted(rows, key=lambda row: row.sort)


# ------------------------------------------------------------------ rows


def _place(call: Call, at: datetime, rank: int) -> dict[str, Any]:
    """Where a row stands. Of rows with the same time a socket comes first, then words, then their turn."""
    local = timezone.localtime(at)
    seconds = (at - call.started_at).total_seconds()
    return {"clock": f"{local:%H:%M:%S}", "offset": words.offset(seconds), "sort": (at, rank)}


def _said(call: Call, said: list[Utterance]) -> list[Row]:
    rows: list[Row] = []
    newest = call.started_at
    for utterance in said:
        newest = max(newest, utterance.first_seen_at)
        if utterance.turn_id is not None:
            continue  # shown as what was heard of its turn
        who = WHO.get(utterance.role, utterance.role)
        place = _place(call, newest, 1)
        rows.append(SaidRow(shape="said", who=who, role=utterance.role, text=utterance.text, **place))
    return rows


def _turn(call: Call, turn: Turn, *, is_last: bool) -> TurnRow:
    heard, dropped, heard_as = split(turn.text, turn.heard)
    why = _dropped_why(call, turn, is_last=is_last)
    return TurnRow(
        shape="turn",
        number=turn.number,
        response_id=turn.response_id,
        socket=turn.socket,
        asked=ASKED.get(Turn.Kind(turn.kind), turn.kind),
        outcome=_outcome(call, turn),
        tone=TONES.get(Turn.Outcome(turn.outcome), ""),
        heard=heard,
        dropped=dropped,
        dropped_why=why,
        is_certain=why == NOT_HEARD,
        heard_as=heard_as,
        timings=_timings(turn),
        action=words.action(turn.action),
        protected=turn.protected,
        cost=_cost(turn),
        tools=[_tool(run) for run in turn.tool_calls],
        error=turn.error,
        **_place(call, turn.asked_at, 2),
    )


def split(sent: str, heard: str) -> tuple[str, str, str]:
    """The part of what was sent that was heard, the part that was not, and what was heard in other words."""
    if not heard.strip():
        return "", sent, ""
    rest = unheard(sent, heard)
    if not rest:
        return sent, "", ""
    kept = sent[: sent.rindex(rest)]
    if len(kept.split()) < len(heard.split()) // 2:
        return "", sent, heard  # the transcript words it differently, for example a number
    return kept, rest, ""


def _dropped_why(call: Call, turn: Turn, *, is_last: bool) -> str:
    if turn.outcome == Turn.Outcome.SUPERSEDED or not is_last:
        return NOT_HEARD
    if call.status == Call.Status.LIVE:
        return "not heard yet"
    return "no transcript came after it, so whether it was heard is not known"


def _outcome(call: Call, turn: Turn) -> str:
    if turn.outcome == Turn.Outcome.OPEN and call.status != Call.Status.LIVE:
        return "Never finished"
    return turn.get_outcome_display()


def _timings(turn: Turn) -> list[tuple[str, str]]:
    moments = [
        ("first text", turn.first_text_at),
        ("first sentence", turn.first_sentence_at),
        ("done", turn.done_at),
    ]
    if turn.kind in (Turn.Kind.BEGIN, Turn.Kind.INTERRUPT):
        del moments[:2]  # nobody was waiting
    return [(label, words.ms(turn.ms_to(moment))) for label, moment in moments if moment]


def _cost(turn: Turn) -> str:
    tokens = [
        f"{count:,} tokens {way}"
        for count, way in ((turn.input_tokens, "in"), (turn.output_tokens, "out"))
        if count is not None
    ]
    return ", ".join(filter(None, [turn.model, *tokens]))


def _tool(run: Any) -> ToolRow:
    run = run if isinstance(run, dict) else {"name": words.plain(run)}
    took = ""
    if isinstance(started := run.get("started"), float) and isinstance(finished := run.get("finished"), float):
        took = words.ms(round((finished - started) * 1000))
    state = {True: "succeeded", False: "failed"}.get(run.get("successful"), "") if "result" in run else "no result"
    return ToolRow(
        words.plain(run.get("name", "?")),
        words.plain(run.get("arguments", "")),
        words.plain(run.get("result", "")),
        state,
        took,
    )


def _note(call: Call, note: Event) -> NoteRow:
    body = _object(note.body)
    facts = ", ".join(f"{name}: {words.plain(value)}" for name, value in body.items() if value not in (None, ""))
    title, tone = note.kind.capitalize(), ""
    if note.kind == "socket opened" and body.get("socket", 1) != 1:
        title, tone = "Reconnected", "warn"
    if note.kind in ("bad frame", "odd frame"):
        tone = "warn"
    return NoteRow(shape="note", title=title, facts=facts, tone=tone, **_place(call, note.at, 0))


def _is_the_end(call: Call, note: Event) -> bool:
    """The last socket's end is the call's, which has a row of its own."""
    return bool(call.ended_at) and note.kind == "socket closed" and _object(note.body).get("socket") == call.sockets


def _reconnects(call: Call, turns: list[Turn]) -> list[Row]:
    """Where the socket changed, from the turns, when no notes were recorded."""
    return [
        NoteRow(shape="note", title="Reconnected", facts="", tone="warn", **_place(call, after.asked_at, 0))
        for before, after in pairwise(turns)
        if after.socket > before.socket
    ]


def _end(call: Call, at: datetime) -> NoteRow:
    who = words.closed_by(call.get_closed_by_display(), call.close_code, call.close_reason)
    facts = "; ".join(filter(None, [f"by {who}", words.closing(call.closed_by, call.close_code)]))
    tone = "bad" if closed_oddly(call) else "good"
    return NoteRow(shape="end", title="Call ended", facts=facts, tone=tone, **_place(call, at, 3))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"body": text}
    return found if isinstance(found, dict) else {"body": found}
