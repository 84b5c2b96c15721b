"""A server process in the foreground: what it prints is kept, and can be waited for."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any


class NotSeenError(Exception):
    """What was waited for did not come; the text is all the process has said."""


class Process:
    """Runs from the beginning; `end` it, whatever happens."""

    def __init__(self, command: list[str], *, env: Mapping[str, str], **popen: Any) -> None:
        self._said: list[str] = []
        self._news = threading.Condition()
        self._silent = False
        self._process = subprocess.Popen(
            command, env=env, text=True, errors="replace", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **popen,
        )  # fmt: skip
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything it has said until now."""
        return "".join(self._said)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, pattern: str, within: float = 20) -> re.Match[str]:
        """The first match in its output, past or to come."""
        deadline = time.monotonic() + within
        with self._news:
            while not (match := re.search(pattern, self.log)):
                left = deadline - time.monotonic()
                if self._silent or left <= 0:
                    raise NotSeenError(f"No {pattern!r} within {within} s. It said:\n{self.log}")
                self._news.wait(left)
        return match

    def wait(self, within: float = 30) -> int:
        """Its exit code, once it has ended by itself."""
        code = self._process.wait(within)
        self._listener.join(5)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGTERM, within: float = 15) -> int:
        """Its exit code after a signal; killed when it takes no notice."""
        self._process.send_signal(how)
        try:
            return self.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._hear(line)
        self._hear("", silent=True)

    def _hear(self, line: str, silent: bool = False) -> None:
        with self._news:
            self._said.append(line)
            self._silent = silent
            self._news.notify_all()
