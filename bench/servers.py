"""Servers under measurement: real Daphne processes, pinned to one core, with their own database."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE, LOAD_CORE = 0, 1
TICK = os.sysconf("SC_CLK_TCK")
LISTENING = re.compile(r"127\.0\.0\.1:(\d+)")


class Server:
    """A running server: where it listens, and what it has used."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.pid = process.pid
        self.process = process
        self.url = f"ws://127.0.0.1:{port}/llm-websocket"
        self.log = log

    def cpu_s(self) -> float:
        """Processor seconds used so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory_kb(self) -> int:
        """Resident memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]


@contextmanager
def serve(application: str, command: str = "project.serve", **environment: str) -> Iterator[Server]:
    """`application` under `command`, ours or stock `daphne`, on a free port of the loopback, stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="switchboard-bench-"))
    env = {
        **os.environ, "DEBUG": "0", "SECRET_KEY": "bench-" * 12, "ENV_FILE": str(home / "none"),
        "LLM_OPEN_URL": "1", "LLM_ALLOWED_ADDRESSES": "127.0.0.1", "ADMIN_PASSWORD": "not-used-at-all",
        "DATABASE_URL": f"sqlite:///{home / 'db.sqlite3'}", **environment,
    }  # fmt: skip
    _manage(env, "migrate", "-v0")
    _manage(env, "setup")
    log = home / "log"
    words = [sys.executable, "-m", command, "-e", "tcp:0:interface=127.0.0.1", "--access-log", os.devnull, application]
    with log.open("w") as out:
        process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, text=True)
    try:
        os.sched_setaffinity(process.pid, {SERVER_CORE})
        yield Server(process, _port(process, log), log)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(home, ignore_errors=True)


def _manage(env: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def _port(process: subprocess.Popen[str], log: Path) -> int:
    with subprocess.Popen(
        ["tail", "-n", "+1", "-F", "-s", "0.05", str(log)], stdout=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stdout is not None
        for line in tail.stdout:
            if found := LISTENING.search(line):
                tail.terminate()
                return int(found[1])
            assert process.poll() is None, log.read_text()
    raise RuntimeError("the server never listened")
