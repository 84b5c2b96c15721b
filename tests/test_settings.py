"""project/settings.py: documented, safe by default, and refusing to start without what it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.servers import BASE_DIR, Templates, clean_environment, python

SECRET = "a-secret-of-more-than-fifty-characters-for-this-test-alone-0123456789"
PRODUCTION = {"DEBUG": "0", "SECRET_KEY": SECRET, "ALLOWED_HOSTS": "calls.example.org"}
TELL_KNOWN = "import json, project.settings; from project import environment; print(json.dumps(environment.KNOWN))"


def known(**env: str) -> dict[str, str]:
    """What the settings ask the environment for, with defaults."""
    told: dict[str, str] = json.loads(python("-c", TELL_KNOWN, env=clean_environment(**env)))
    return told


def setting(name: str, **env: str) -> Any:
    """A setting as JSON can tell it."""
    tell = f"import json; from project import settings; print(json.dumps(settings.{name}))"
    return json.loads(python("-c", tell, env=clean_environment(**env)))


def test_the_readme_lists_every_setting_and_no_other() -> None:
    readme = (BASE_DIR / "README.md").read_text()
    cells = re.findall(r"^\| *(`[A-Z][^|]*)\|", readme, re.MULTILINE)
    documented = re.findall(r"`([A-Z][A-Z0-9_]*)`", " ".join(cells))
    assert len(documented) == len(set(documented))
    assert set(documented) == {*known(), *known(**PRODUCTION)}


def test_a_deployment_check_finds_nothing_in_production(templates: Templates, tmp_path: Any) -> None:
    database = templates.new_sqlite(tmp_path / "db.sqlite3")
    env = clean_environment(DATABASE_URL=database, **PRODUCTION)
    said = python("manage.py", "check", "--deploy", "--fail-level", "WARNING", env=env)
    assert "no issues" in said


@pytest.mark.parametrize("arguments", [("-m", "project.serve"), ("manage.py", "check")])
def test_nothing_starts_without_a_secret_key(arguments: tuple[str, ...]) -> None:
    env = clean_environment(**{**PRODUCTION, "SECRET_KEY": ""})
    done = subprocess.run(
        [sys.executable, *arguments], cwd=BASE_DIR, env=env, text=True, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert "SECRET_KEY is not set" in done.stderr


@pytest.mark.parametrize(
    ("name", "written", "remedy"),
    [
        ("DEBUG", "maybe", "write 1 or 0"),
        ("LLM_MAX_CALLS", "many", "write a number"),
        ("LLM_MAX_FRAME_BYTES", "3", "write at least 1024"),
        ("DRAIN_S", "nan", "write at least 0"),
    ],
)
def test_a_wrong_value_says_what_to_write(name: str, written: str, remedy: str) -> None:
    with pytest.raises(AssertionError, match=remedy):
        known(**{**PRODUCTION, name: written})


def test_production_is_closed_by_default() -> None:
    assert setting("LLM_OPEN_URL", **PRODUCTION) is False
    assert setting("LLM_ALLOWED_ADDRESSES", **PRODUCTION) == ["100.20.5.228"]
    assert setting("ALLOWED_HOSTS", **{**PRODUCTION, "ALLOWED_HOSTS": ""}) == []


def test_the_environment_chooses_database_and_channel_layer() -> None:
    databases = setting("DATABASES", DATABASE_URL="postgres://anna:p%40ss@db.example.org:5433/calls")
    assert {name: databases["default"][name] for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")} == {
        "HOST": "db.example.org",
        "PORT": 5433,
        "USER": "anna",
        "PASSWORD": "p@ss",
        "NAME": "calls",
    }
    layers = setting("CHANNEL_LAYERS", REDIS_URL="redis://cache.example.org/1")
    assert layers["default"]["CONFIG"]["hosts"][0]["address"] == "redis://cache.example.org/1"


def test_a_file_adds_what_the_environment_does_not_say(tmp_path: Any) -> None:
    file = tmp_path / "env"
    file.write_text("LOG_LEVEL=ERROR\nTIME_ZONE=Europe/Paris\n")
    env = {"ENV_FILE": str(file), "TIME_ZONE": "Asia/Tokyo"}
    assert setting("LOGGING", **env)["root"]["level"] == "ERROR"
    assert setting("TIME_ZONE", **env) == "Asia/Tokyo"
