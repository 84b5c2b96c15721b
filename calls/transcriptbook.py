"""The newest transcript of a call and when each entry came up, as rows and as changes from frame to frame.
Part of the notebook: in memory, never waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from calls.notes import UtteranceNote
from calls.protocol import Item, Items, Transcript
from calls.transcript import Sent, origin, unchanged


class TranscriptBook:
    """Entries by position, and from which of them on something has changed since the last page."""

    def __init__(self, entries: list[UtteranceNote] | None = None) -> None:
        self.entries = list(entries or [])
        self._transcript: Transcript = tuple(note.said for note in self.entries)
        self._items: Items = ()
        self._dirty_from: int | None = None
        self._has_shrunk = False
        self._taken_back: set[int] = set()

    def __len__(self) -> int:
        return len(self._transcript)

    def heard(self, transcript: Transcript, at: float) -> dict[str, Any]:
        """Takes the newest transcript; returns the change from the one before, as events store it."""
        kept = unchanged(self._transcript, transcript)
        changed = transcript[kept:]
        if changed or len(transcript) != len(self._transcript):
            self._replace(kept, transcript, at)
        return {"keep": kept, "then": [{"role": said.role, "content": said.content} for said in changed]}

    def tools(self, items: Items) -> dict[str, Any]:
        """The same for the transcript with tool calls, of which only the changes are kept."""
        kept = unchanged(self._items, items)
        self._items = items
        return {"items_keep": kept, "items_then": [_fields(item) for item in items[kept:]]}

    def _replace(self, kept: int, transcript: Transcript, at: float) -> None:
        entries = self.entries
        self._taken_back |= {entry.turn for entry in entries[kept:] if entry.turn is not None}
        for position in range(kept, len(transcript)):
            first_seen = entries[position].first_seen if position < len(entries) else at
            entry = UtteranceNote(position, transcript[position].alone(), first_seen, at)
            entries[position : position + 1] = [entry]
        if len(transcript) < len(entries):
            del entries[len(transcript) :]
            self._has_shrunk = True
        self._transcript = transcript
        self._dirty_from = kept if self._dirty_from is None else min(self._dirty_from, kept)

    # ------------------------------------------------------------------ saving

    @property
    def is_saved(self) -> bool:
        return self._dirty_from is None

    def take(self, sent: Sequence[Sent]) -> tuple[list[UtteranceNote], int | None]:
        """What has changed since the last time, with the turns it came from; and the length, if it shrank."""
        changed = [] if self._dirty_from is None else self.entries[self._dirty_from :]
        for entry in changed:
            if entry.said.role == "agent":
                found = origin(entry.said, entry.position, sent)
                entry.turn = found.number if found else None
        length = len(self.entries) if self._has_shrunk else None
        self._dirty_from, self._has_shrunk = None, False
        return changed, length

    def put_back(self, taken: Sequence[UtteranceNote], length: int | None) -> None:
        """These could not be saved: their newest state waits for the next time."""
        positions = [entry.position for entry in taken]
        if self._dirty_from is not None:
            positions.append(self._dirty_from)
        self._dirty_from = min(positions, default=None)
        self._has_shrunk = self._has_shrunk or length is not None

    def reheard(self, changed: Sequence[UtteranceNote]) -> set[int]:
        """The turns of which more or less has been heard since the last time."""
        taken_back, self._taken_back = self._taken_back, set()
        return taken_back | {entry.turn for entry in changed if entry.turn is not None}

    def words_of(self, turn: int) -> str:
        """Everything that was heard of a turn."""
        return " ".join(entry.said.content for entry in self.entries if entry.turn == turn)


def _fields(item: Item) -> dict[str, Any]:
    return {
        name: getattr(item, name)
        for name in ("role", "content", "tool_call_id", "name", "arguments", "successful", "digit")
        if getattr(item, name) not in ("", None)
    }
