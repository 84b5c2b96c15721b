"""`make run` and `manage.py setup`: a fresh copy serves at once, and starting it again changes nothing."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import TestCase, override_settings
from websockets.sync.client import connect

from agents.models import Agent
from tests.process import Process
from tests.servers import BASE_DIR, clean_environment, python

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "db.sqlite3*", "staticfiles", ".env", "__pycache__", ".*_cache")
OF_AN_OUTER_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS", "VENV"}
SECRET = "a-secret-of-more-than-fifty-characters-for-this-test-alone-0123456789"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project as somebody has just cloned it."""
    return shutil.copytree(BASE_DIR, tmp_path / "switchboard", ignore=LEFT_OUT)


@contextmanager
def make_run(copy: Path, **env: str) -> Iterator[Process]:
    """The server of `make run`, listening; nothing is installed, because this test's packages will do."""
    stamp = f"{sys.prefix}/run.stamp"
    command = ["make", "run", f"VENV={sys.prefix}", "-o", stamp]
    inherited = clean_environment(**env)
    for name in {"DEBUG", "ENV_FILE", *OF_AN_OUTER_MAKE} - {*env}:
        inherited.pop(name, None)
    process = Process(command, env=inherited, cwd=copy)
    try:
        process.wait_for("Listening on")
        yield process
    finally:
        process.end(signal.SIGTERM)


def second_terminal(copy: Path, *arguments: str) -> str:
    """What `manage.py …` prints to somebody who says hello to it and has set nothing: as the README has it."""
    env = {name: value for name, value in clean_environment().items() if name not in ("DEBUG", "ENV_FILE")}
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=copy, env=env, input="Hello\n", text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.skipif(not shutil.which("make"), reason="apt-get install make")
class TestMakeRun:
    def test_a_fresh_copy_answers_a_call_and_lets_the_admin_in(self, copy: Path) -> None:
        port = free_port()
        with make_run(copy, PORT=port) as run:
            console = run.wait_for(r"Console +(\S+)")[1]
            password = run.wait_for(r"Sign in +admin with (\S+)")[1]
            platform = run.wait_for(r"Platform +(\S+)")[1]
            assert (console, platform) == (f"http://127.0.0.1:{port}/admin/", f"ws://127.0.0.1:{port}/llm-websocket")
            assert "needs a public wss:// address" in run.log
            with urllib.request.urlopen(console) as page:
                assert page.status == 200
            with connect(f"{platform}/call_1") as call:
                assert "How may I help you?" in str(call.recv(5))
            assert "agent  I am sorry, can you say that again?" in second_terminal(copy, "phone", platform)
        check = f"from django.contrib.auth import authenticate as a; print(a(username='admin', password={password!r}))"
        assert self.shell(copy, check) == "admin"

    def test_the_second_time_nothing_changes(self, copy: Path) -> None:
        port = free_port()
        tell = "print([*User.objects.values('pk', 'password'), *Agent.objects.values('pk', 'updated_at')])"
        with make_run(copy, PORT=port, ADMIN_PASSWORD="chosen-by-hand"):
            pass
        before = self.shell(copy, tell)
        with make_run(copy, PORT=port) as run:
            assert "Sign in" not in run.log
            assert "Platform" in run.log
        assert self.shell(copy, tell) == before

    def test_a_file_may_make_it_production(self, copy: Path) -> None:
        (copy / ".env").write_text(f"DEBUG=0\nSECRET_KEY={SECRET}\nALLOWED_HOSTS=127.0.0.1\nSECURE_SSL_REDIRECT=0\n")
        port = free_port()
        with make_run(copy, PORT=port, PUBLIC_URL="https://calls.example.org") as run:
            assert "wss://calls.example.org/llm-websocket/<key>" in run.log
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/login/") as page:
                css = re.search(rb'href="(/static/[^"]+\.[0-9a-f]{12}\.css)"', page.read())
            assert css is not None
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{css[1].decode()}") as style:
                assert style.status == 200
        manifest = copy / "staticfiles" / "staticfiles.json"
        collected = manifest.stat().st_mtime_ns
        with make_run(copy, PORT=port):
            assert manifest.stat().st_mtime_ns == collected

    def shell(self, copy: Path, code: str) -> str:
        env = clean_environment()
        return python("manage.py", "shell", "-v0", "-c", code, env=env, cwd=copy).strip()


@pytest.mark.database
class TestSetup(TestCase):
    def test_a_new_installation_gets_an_agent_as_in_the_platforms_guide(self) -> None:
        self.setup()
        agent = Agent.objects.get()
        assert (agent.slug, agent.is_default, agent.auto_reconnect, agent.call_details) == (
            "default",
            True,
            False,
            False,
        )
        agent.full_clean()

    def test_an_agent_of_any_kind_is_enough(self) -> None:
        Agent.objects.create(name="Anna", slug="anna")
        self.setup()
        assert [agent.slug for agent in Agent.objects.all()] == ["anna"]

    def test_the_generated_password_is_printed_once(self) -> None:
        told = re.search(r"Sign in +admin with (\S+)", self.setup())
        assert told is not None
        assert authenticate(username="admin", password=told[1]) == User.objects.get(is_superuser=True)
        assert "Sign in" not in self.setup()

    @override_settings(ADMIN_USER="anna", ADMIN_PASSWORD="chosen-by-hand")
    def test_a_chosen_password_is_not_printed(self) -> None:
        assert "chosen-by-hand" not in self.setup()
        assert authenticate(username="anna", password="chosen-by-hand") is not None

    def test_an_admin_of_any_name_is_enough(self) -> None:
        User.objects.create_superuser("anna")
        self.setup()
        assert User.objects.count() == 1

    def test_it_promotes_nobody(self) -> None:
        User.objects.create_user("admin")
        with pytest.raises(CommandError, match="set ADMIN_USER"):
            self.setup()

    @override_settings(LLM_OPEN_URL=False, PUBLIC_URL="https://calls.example.org/")
    def test_it_prints_the_public_address(self) -> None:
        said = self.setup()
        assert "wss://calls.example.org/llm-websocket/<key> " in said
        assert "make one on the agent's page" in said
        assert "needs a public" not in said

    def test_it_prints_an_address_one_can_open(self) -> None:
        assert "http://127.0.0.1:8000/admin/" in self.setup(host="0.0.0.0")
        assert "ws://[::1]:9000/llm-websocket " in self.setup(host="::", port=9000)

    def setup(self, **options: object) -> str:
        printed = StringIO()
        call_command("setup", stdout=printed, **options)
        return printed.getvalue()
