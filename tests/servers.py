"""Real servers for tests: `python -m project.serve` in a process of its own, on a free port, with a database that
nobody else has. Databases are copies of one that was migrated and set up once."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row

from project import environment
from tests.process import Process

BASE_DIR = Path(__file__).resolve().parent.parent
ADMIN, PASSWORD = "admin", "sesame-open-4711"
TEMPLATE = "switchboard_template"

RUNNING: list[Daphne] = []


def clean_environment(**chosen: str) -> dict[str, str]:
    """This process's environment without a word on this project, except what is chosen."""
    ours = {*environment.KNOWN, "DJANGO_SETTINGS_MODULE"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {**inherited, "PYTHONUNBUFFERED": "1", "ENV_FILE": os.devnull, "DEBUG": "1", **chosen}


def python(*arguments: str, env: Mapping[str, str], cwd: Path = BASE_DIR) -> str:
    """What a Python command prints; raises with everything it said when it fails."""
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)} failed with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Daphne:
    """One server process; `start` begins it and waits until it listens."""

    def __init__(self, database_url: str, port: int, env: Mapping[str, str], arguments: tuple[str, ...]) -> None:
        self.database_url = database_url
        self.port = port
        self.env = clean_environment(DATABASE_URL=database_url, **env)
        self._arguments = arguments

    def start(self) -> None:
        """On a free port the first time, on the same one ever after."""
        endpoint = f"tcp:{self.port}:interface=127.0.0.1"
        command = [sys.executable, "-m", "project.serve", "-e", endpoint, *self._arguments]
        self.process = Process(command, env=self.env, cwd=BASE_DIR)
        RUNNING.append(self)
        self.port = int(self.process.wait_for(r"project\.serve: Listening on 127\.0\.0\.1:(\d+)")[1])

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/llm-websocket"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.process.log

    def terminate(self, within: float = 30) -> int:
        """The exit code after SIGTERM."""
        return self.process.end(signal.SIGTERM, within)

    def kill9(self) -> None:
        self.process.end(signal.SIGKILL)

    def manage(self, *arguments: str) -> str:
        """What `manage.py …` prints beside this server."""
        return python("manage.py", *arguments, env=self.env)

    def shell(self, code: str) -> str:
        """What `code` prints in a Django shell beside this server; models are imported."""
        return self.manage("shell", "-v0", "-c", code)

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """A query with %s for parameters. SQLite gives booleans as 0 and 1, JSON and times as text."""
        if self.database_url.startswith("sqlite"):
            return _sqlite_rows(self.database_url.removeprefix("sqlite:///"), sql, parameters)
        with psycopg.connect(self.database_url, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(sql, parameters).fetchall()


class Servers:
    """Starts servers and ends them all. `postgres_url` is asked only when a test wants PostgreSQL."""

    def __init__(self, directory: Path, templates: Templates) -> None:
        self._directory = directory
        self._templates = templates
        self._started: list[Daphne] = []

    def __call__(
        self,
        *arguments: str,
        database: str | Daphne = "sqlite",
        env: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> Daphne:
        """A server that listens: on a new database, `sqlite` or `postgres`, or on that of another server. Each has
        the default agent and a superuser, ADMIN with PASSWORD. `arguments` are for the command line."""
        url = database.database_url if isinstance(database, Daphne) else self._new_database(database)
        server = Daphne(url, port, env or {}, arguments)
        self._started.append(server)
        server.start()
        return server

    def close(self) -> None:
        """At once: a test about an orderly end makes one itself."""
        for server in self._started:
            server.kill9()
            RUNNING.remove(server)

    def _new_database(self, kind: str) -> str:
        if kind == "postgres":
            return self._templates.new_postgres()
        assert kind == "sqlite", f"database={kind!r}: sqlite, postgres or a server"
        return self._templates.new_sqlite(self._directory / f"{uuid4().hex}.sqlite3")


class Templates:
    """Databases to copy, each migrated and set up when it is first needed."""

    def __init__(self, directory: Path, postgres_url: Callable[[], str]) -> None:
        self._sqlite = directory / "template.sqlite3"
        self._postgres_url = postgres_url
        self._postgres_is_ready = False

    def new_sqlite(self, path: Path) -> str:
        if not self._sqlite.exists():
            set_up(f"sqlite:///{self._sqlite}")
        shutil.copyfile(self._sqlite, path)
        return f"sqlite:///{path}"

    def new_postgres(self) -> str:
        if not self._postgres_is_ready:
            set_up(self._create(TEMPLATE, "template0"))
            self._postgres_is_ready = True
        return self._create(f"live_{uuid4().hex}", TEMPLATE)

    def _create(self, name: str, template: str) -> str:
        url = self._postgres_url()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"{url.rpartition('/')[0]}/{name}"


def set_up(database_url: str) -> None:
    """Tables, the default agent and the superuser."""
    env = clean_environment(DATABASE_URL=database_url, ADMIN_USER=ADMIN, ADMIN_PASSWORD=PASSWORD)
    python("manage.py", "setup", env=env)


def _sqlite_rows(path: str, sql: str, parameters: tuple[Any, ...]) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql.replace("%s", "?"), parameters)]
