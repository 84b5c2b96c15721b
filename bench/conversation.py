"""The frames of a made-up but ordinary call, as texts, with and without word timings.
One caller utterance is three growing updates, a request, the agent's turn and a ping."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, cycle, islice

ANSWER = "I am sorry, can you say that again?"
VOCABULARY = [
    "well",
    "I",
    "was",
    "wondering",
    "whether",
    "you",
    "could",
    "tell",
    "me",
    "if",
    "my",
    "bike",
    "is",
    "ready",
    "yet",
    "because",
    "the",
    "shop",
    "said",
    "it",
    "would",
    "take",
    "about",
    "three",
    "days",
    "and",
    "now",
    "it",
    "has",
    "been",
    "almost",
    "a",
    "week",
    "so",
    "maybe",
    "somebody",
    "forgot",
    "to",
    "call",
    "me",
    "back",
    "about",
    "it",
]
GROWTH = (4, 8, 12)


def utterance(role: str, words: list[str], at: float, timed: bool) -> dict[str, object]:
    """An entry of a transcript; `at` is its start in seconds of audio."""
    entry: dict[str, object] = {"role": role, "content": " ".join(words)}
    if timed:
        entry["words"] = [
            {"word": word, "start": round(at + 0.31 * number, 3), "end": round(at + 0.31 * number + 0.27, 3)}
            for number, word in enumerate(words)
        ]
    return entry


def frames(utterances: int, *, timed: bool) -> list[str]:
    """A whole call, its transcript growing to `utterances` caller utterances and as many answers."""
    return [json.dumps(frame, separators=(",", ":")) for frame in _call(utterances, timed)]


def _call(utterances: int, timed: bool) -> Iterator[dict[str, object]]:
    spoken = cycle(VOCABULARY)
    said: list[dict[str, object]] = [utterance("agent", ["How", "may", "I", "help", "you?"], 0.4, timed)]
    clock = count(1)
    for number in range(1, utterances + 1):
        at, words = number * 8.0, list(islice(spoken, GROWTH[-1]))
        for length in GROWTH:
            caller = utterance("user", words[:length], at, timed)
            first = {"turntaking": "user_turn"} if length == GROWTH[0] else {}
            yield {"interaction_type": "update_only", "transcript": [*said, caller], **first}
        said = [*said, utterance("user", words, at, timed)]
        yield {"interaction_type": "response_required", "response_id": number, "transcript": said}
        said = [*said, utterance("agent", ANSWER.split(), at + 4, timed)]
        yield {"interaction_type": "update_only", "transcript": said, "turntaking": "agent_turn"}
        yield {"interaction_type": "ping_pong", "timestamp": next(clock)}
