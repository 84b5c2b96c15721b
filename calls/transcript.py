"""Arithmetic on transcripts: what changed between two cumulative ones, and which words of ours were heard.
Plain values only; what is done about it is decided elsewhere (protocol.md 4.3 and 4.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from calls.protocol import Item, Utterance

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Sent(Struct, frozen=True):
    """Words sent for a turn; `position` is the length of the transcript when it was asked for."""

    number: int
    response_id: int
    position: int
    text: str


def unchanged(old: Sequence[Utterance | Item], new: Sequence[Utterance | Item]) -> int:
    """How many leading entries of `new` say the same as in `old`."""
    shared = min(len(old), len(new))
    # nearly always only the last entry has moved on, and one comparison of all others is done in C
    settled = max(shared - 1, 0)
    begin = settled if old[:settled] == new[:settled] else 0
    for position in range(begin, shared):
        if not _same(old[position], new[position]):
            return position
    return shared


def _same(before: Utterance | Item, after: Utterance | Item) -> bool:
    if before.content != after.content or before.role != after.role:
        return False
    if isinstance(before, Item) and isinstance(after, Item):
        return (before.tool_call_id, before.digit) == (after.tool_call_id, after.digit)
    return True


def origin(utterance: Utterance, position: int, sent: Sequence[Sent]) -> Sent | None:
    """The turn an agent's utterance came from; None when its words are none of ours.

    An answer is spoken after everything that was said when it was asked for, so it is the newest
    turn asked for by then that holds these words: the same sentence may have been sent before.
    """
    heard = _spoken(utterance.content)
    if not heard:
        return None
    told = utterance.response_id()
    named = [turn for turn in sent if turn.response_id == told]
    if named:
        return named[-1]
    for turn in reversed(sent):
        if turn.position <= position and heard in _spoken(turn.text):
            return turn
    return None


def unheard(sent: str, heard: str) -> str:
    """The rest of what was sent, from the first word that was not heard; empty when all of it was."""
    words = [word.casefold() for word in _WORD.findall(heard)]
    spoken_to = 0
    for word, found in zip(words, _WORD.finditer(sent), strict=False):
        if not found[0].casefold().startswith(word):
            break
        spoken_to = found.end()
    rest = sent[spoken_to:]
    return rest.lstrip(" .,!?;:…").rstrip() if _WORD.search(rest) else ""


def _spoken(text: str) -> str:
    return " ".join(word.casefold() for word in _WORD.findall(text))
