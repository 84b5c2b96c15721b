"""The project's settings as tests use them: development ones, whatever the shell or a .env says. SQLite is a file, so
that threads share what a test writes; DATABASE_URL and REDIS_URL still choose other services."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.update(DEBUG="1", ENV_FILE=os.devnull)

from project.settings import *  # noqa: F403 - how Django settings build on others
from project.settings import DATABASES

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # made and removed by the test runner
    DATABASES["default"]["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"switchboard-{os.getpid()}.sqlite3")}

# one round instead of a million: nobody guesses these passwords
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
