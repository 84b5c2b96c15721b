"""The sessions of protocol.md 9.2, played as they stand against a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from calls.phone import Phone, Player, call_id_of, read_script
from tests.live import SCRIPTED, add_agents, played
from tests.puppet import SESSIONS
from tests.servers import BASE_DIR, Daphne, Servers

GREETED_BY_NAME = {
    "responder": "scripted",
    "greeting": "Harbor Cycles, hi {{customer_name}}. What can I do for you?",
    "responder_settings": {
        "script": {
            1: "say Sure, | hang",
            2: "say Let me look that up. "
            '| tool tc_a1 ticket_status {"phone":"+15035550142"} {"state":"ready","price":64} '
            "| say Good news, it is ready. | say_last It comes to sixty-four dollars. | done",
            3: "protect | end See you soon, Ines. Bye!",
        }
    },
}
RECONNECTED = {
    "responder": "scripted",
    "responder_settings": {
        "script": {
            7: "say We do. | hang",
            8: "done Sorry about that. Yes, rentals are thirty dollars a day.",
        }
    },
}
AS_IN_THE_SEEDS = {
    "auto_reconnect": False,
    "call_details": False,
    "greeting": "How can I help you today?",
    "fallback_text": "Sorry, could you repeat that?",
    "reminder_text": "Are you still there?",
}
SPEAKING_UNASKED = {
    "responder": "scripted",
    "fallback_text": "Sorry, something went wrong on my side. Could you say that again?",
    "responder_settings": {
        "script": {
            4: 'listen {"reminder_trigger_ms":30000,"responsiveness":0.3} '
            "| later_interrupt A quick note: we close in five minutes. | crash no reason",
        }
    },
}


@pytest.fixture(scope="module")
def server(module_daphne: Servers) -> Daphne:
    return module_daphne(env=SCRIPTED)


@pytest.fixture(scope="module")
def url(server: Daphne) -> dict[str, str]:
    """The URL of each session's agent."""
    return add_agents(server, a=GREETED_BY_NAME, b=RECONNECTED, c=AS_IN_THE_SEEDS, d=SPEAKING_UNASKED)


@pytest.mark.parametrize(("name", "frames"), [("a", 14), ("b", 6), ("c", 3), ("d", 3)])
@played
async def test_every_session_is_played_as_it_stands(url: dict[str, str], name: str, frames: int) -> None:
    lines = read_script((SESSIONS / f"{name}.jsonl").read_text())
    player = Player(Phone(url[name], call_id_of(lines)), lines)
    await player.play()
    assert player.compared == frames


def play(server: Daphne, url: str, script: Path, call_id: str) -> subprocess.CompletedProcess[str]:
    """`manage.py phone` in a process of its own; with a call id that was heard before it would be a reconnect."""
    command = [sys.executable, "manage.py", "phone", url, "--script", str(script), "--call-id", call_id]
    return subprocess.run(command, cwd=BASE_DIR, env=server.env, text=True, capture_output=True, check=False)


def test_the_command_plays_a_session(server: Daphne, url: dict[str, str]) -> None:
    done = play(server, url["a"], SESSIONS / "a.jsonl", "call_by_command")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "conformant: 28 lines, 14 frames of the server as written\n"


def test_the_command_fails_at_the_first_deviation(server: Daphne, url: dict[str, str], tmp_path: Path) -> None:
    rows = (SESSIONS / "a.jsonl").read_text().splitlines()
    rows[20] = rows[20].replace("Good news", "Bad news")
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join(rows))
    done = play(server, url["a"], changed, "call_deviating")
    assert (done.returncode, done.stdout) == (1, "")
    first, *_, last = done.stderr.splitlines()
    assert first == "line 21: another frame than expected"
    assert last == '  content: expected "Bad news, it is ready. ", got "Good news, it is ready. "'
