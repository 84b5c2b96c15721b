"""What tests share: services, real servers, and the programs that a machine may lack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager

import pytest

from tests import services
from tests.servers import RUNNING, Servers, Templates


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of this run, with a database nobody needs."""
    given = os.environ.get("DATABASE_URL", "")
    if given.startswith("postgres"):
        yield given
        return
    yield from _url_of(services.postgres())


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of this run."""
    given = os.environ.get("REDIS_URL", "")
    if given:
        yield given
        return
    yield from _url_of(services.redis())


@pytest.fixture
def postgres_server() -> Iterator[services.Service]:
    """A PostgreSQL of this test alone, to be stopped and started again."""
    yield from _service(services.postgres())


@pytest.fixture
def redis_server() -> Iterator[services.Service]:
    """A Redis of this test alone, to be stopped and started again."""
    yield from _service(services.redis())


@pytest.fixture(scope="session")
def templates(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("template"), lambda: request.getfixturevalue("postgres_url"))


@pytest.fixture
def daphne(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Starts servers that end with the test; see tests/servers.py."""
    yield from _servers(templates, tmp_path_factory)


@pytest.fixture(scope="module")
def module_daphne(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Starts servers that end with the file of tests."""
    yield from _servers(templates, tmp_path_factory)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    return _program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def nginx() -> str:
    """The proxy's program."""
    return _program("nginx", "/usr/sbin/nginx")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the servers said."""
    report = yield
    if report.failed:
        report.sections += [(f"log of the server on port {server.port}", server.log) for server in RUNNING]
    return report


def _servers(templates: Templates, directories: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(directories.mktemp("daphne"), templates)
    yield servers
    servers.close()


def _url_of(starting: AbstractContextManager[services.Service]) -> Iterator[str]:
    for service in _service(starting):
        yield service.url


def _service(starting: AbstractContextManager[services.Service]) -> Iterator[services.Service]:
    try:
        service = starting.__enter__()
    except services.MissingServiceError as missing:
        pytest.skip(str(missing))
    try:
        yield service
    finally:
        starting.__exit__(None, None, None)


def _program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no {names[0]} here: apt-get install {names[0]}")
