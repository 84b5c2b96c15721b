"""Laws of transcripts, tried with whatever hypothesis thinks of: what is kept, what is replayed, what was heard."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from agents.settings import AgentSettings
from calls.notebook import Notebook
from calls.protocol import Response, UpdateOnly, Utterance
from calls.transcript import Sent, origin, unchanged, unheard
from calls.turns import RESPONSE, Turn

calmly = settings(deadline=None, max_examples=300)

words = st.sampled_from(["yes", "no", "we do", "Don't!", "é", "(unintelligible audio)", "", "…"])
utterances = st.builds(Utterance, st.sampled_from(["agent", "user"]), words)
talks = st.lists(utterances, max_size=5).map(tuple)
sentences = st.lists(st.sampled_from(["we", "do", "Rent", "bikes.", "don't,", "é!", "…", " "]), max_size=8).map(
    " ".join
)


class TestTranscripts:
    @calmly
    @given(talks, talks)
    def test_what_is_unchanged_is_the_longest_common_beginning(self, old: Any, new: Any) -> None:
        kept = unchanged(old, new)
        assert old[:kept] == new[:kept]
        assert kept == min(len(old), len(new)) or old[kept] != new[kept]

    @calmly
    @given(talks)
    def test_nothing_has_changed_between_a_transcript_and_itself(self, talk: Any) -> None:
        timed = tuple(msgspec.structs.replace(said, words=Raw(b'[{"start":1}]')) for said in talk)
        assert [unchanged(talk, talk), unchanged(talk, timed)] == [len(talk)] * 2

    @calmly
    @given(talks, talks)
    def test_the_kept_and_the_new_entries_make_the_new_transcript(self, old: Any, new: Any) -> None:
        kept = unchanged(old, new)
        assert old[:kept] + new[kept:] == new

    @calmly
    @given(st.lists(talks, max_size=6), st.booleans())
    def test_replaying_the_events_of_a_notebook_yields_its_last_transcript(self, spoken: Any, pages: bool) -> None:
        notebook = Notebook("c", AgentSettings(), process="here")
        events, rows = [], {}
        for talk in spoken:
            notebook.received(UpdateOnly(talk), "")
            if pages:
                events += save(notebook, rows)
        events += save(notebook, rows)
        replayed: list[tuple[str, str]] = []
        for event in events:
            body = json.loads(event.body)
            replayed[body["keep"] :] = [(said["role"], said["content"]) for said in body["then"]]
        last = [(said.role, said.content) for said in (spoken[-1] if spoken else ())]
        assert replayed == last
        assert [rows[position] for position in sorted(rows)] == last

    @calmly
    @given(sentences)
    def test_of_what_was_heard_nothing_is_unheard(self, sent: str) -> None:
        assert unheard(sent, sent) == ""

    @calmly
    @given(sentences)
    def test_of_what_was_not_heard_at_all_everything_is_unheard(self, sent: str) -> None:
        assert unheard(sent, "").split() == (sent.lstrip(" .…!,").split() if any(map(str.isalnum, sent)) else [])

    @calmly
    @given(sentences, st.integers(0, 8))
    def test_what_was_heard_and_what_was_not_make_up_what_was_sent(self, sent: str, cut: int) -> None:
        spoken = sent.split()
        heard, rest = " ".join(spoken[:cut]), " ".join(spoken[cut:])
        assert spoken_words(unheard(sent, heard)) == spoken_words(rest)

    @calmly
    @given(st.lists(sentences, max_size=4), st.integers(0, 3), st.integers(0, 8))
    def test_an_utterance_comes_from_the_newest_turn_that_holds_its_words(
        self, said: Any, which: int, cut: int
    ) -> None:
        sent = [Sent(number, number, 0, text) for number, text in enumerate(said)]
        heard = " ".join(sent[which].text.split()[:cut]) if which < len(sent) else "words of nobody"
        found = origin(Utterance("agent", heard), 3, sent)
        if not spoken_words(heard) or which >= len(sent):
            assert found is None
            return
        assert found is not None
        assert found.number >= which
        assert " ".join(spoken_words(heard)) in " ".join(spoken_words(found.text))


def spoken_words(text: str) -> list[str]:
    return [word for word in (raw.strip(" .…!,").casefold() for raw in text.split()) if word]


def save(notebook: Notebook, rows: dict[int, tuple[str, str]]) -> list[Any]:
    """Writes a page to `rows` as the ledger does to the table; the events of the page."""
    page = notebook.take()
    if page.length is not None:
        for position in [position for position in rows if position >= page.length]:
            del rows[position]
    rows.update({note.position: (note.said.role, note.said.content) for note in page.utterances})
    return page.events


class TestHeard:
    @calmly
    @given(st.lists(talks, min_size=1, max_size=6))
    def test_what_was_heard_of_a_turn_is_what_the_last_transcript_holds_of_it(self, spoken: Any) -> None:
        notebook = Notebook("c", AgentSettings(), process="here")
        notebook.asked(Turn(1, RESPONSE))
        notebook.sent(Response(1, "Yes, we do.", True), "")
        heard, rows = "", {}
        for talk in spoken:
            notebook.received(UpdateOnly(talk), "")
            page = notebook.take()
            heard = next((turn.heard for turn in page.turns), heard)
            rows = {position: rows[position] for position in rows if position < len(talk)}
            rows.update({note.position: note for note in page.utterances})
        assert heard == " ".join(rows[position].said.content for position in sorted(rows) if rows[position].turn == 1)
