"""Settings of the whole project, all from the environment; the README has the table.
Without `DEBUG=1` these are production settings: nothing is open or guessable by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.urls import reverse_lazy

from project import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent
env.read_file(env.text("ENV_FILE", str(BASE_DIR / ".env")))

DEBUG = env.flag("DEBUG", False)

# ---------------------------------------------------------------- secrets and hosts

SECRET_KEY = env.text("SECRET_KEY") or ("only-for-development-" * 3 if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. For production put a long random text there, for example from "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(50))'`. For development set DEBUG=1."
    )
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost 127.0.0.1 [::1]" if DEBUG else "")
if DEBUG and not env.text("ALLOWED_HOSTS"):
    # a tunnel has another name every day
    ALLOWED_HOSTS = ["*"]
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")

# Where `make run` listens, and the superuser that it makes if there is none.
HOST = env.text("HOST", "127.0.0.1")
PORT = env.integer("PORT", 8000, 1)
ADMIN_USER = env.text("ADMIN_USER", "admin")
ADMIN_PASSWORD = env.text("ADMIN_PASSWORD")

# ---------------------------------------------------------------- the platform's door

# Who may dial in, by address. Empty means everybody: only in development, or behind a firewall.
LLM_ALLOWED_ADDRESSES = env.words("LLM_ALLOWED_ADDRESSES", "" if DEBUG else "100.20.5.228")
# Whose X-Forwarded-For is believed, last hop first.
TRUSTED_PROXIES = env.words("TRUSTED_PROXIES", "127.0.0.0/8 ::1")
# Whether /llm-websocket/{call_id} works without a key.
LLM_OPEN_URL = env.flag("LLM_OPEN_URL", DEBUG)
LLM_MAX_CALLS = env.integer("LLM_MAX_CALLS", 2000, 1)
LLM_MAX_FRAME_BYTES = env.integer("LLM_MAX_FRAME_BYTES", 8 * 1024 * 1024, 1024)
# 1002 or 1007: the code a bad frame closes its call with; `ignore` spares the call bad text.
LLM_BAD_FRAMES = env.text("LLM_BAD_FRAMES", "1002")
# How long a knock waits for the database before what was known last has to do.
LLM_LOOKUP_S = env.seconds("LLM_LOOKUP_S", 0.5)
PUBLIC_URL = env.text("PUBLIC_URL")

# ---------------------------------------------------------------- the record

RECORD_EVENTS = env.flag("RECORD_EVENTS", True)
RECORD_EVERY_S = env.seconds("RECORD_EVERY_S", 0.2)
RECORD_BACKLOG = env.integer("RECORD_BACKLOG", 200_000, 1000)
DRAIN_S = env.seconds("DRAIN_S", 5.0)

# ---------------------------------------------------------------- database and channel layer

DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(env.text("DATABASE_URL", f"sqlite:///{BASE_DIR / 'db.sqlite3'}"), conn_max_age=0)
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        transaction_mode="IMMEDIATE",
        timeout=20,
        init_command="PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    )
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    # a database that has vanished must not hold a knock or the recorder for minutes
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)

REDIS_URL = env.text("REDIS_URL")
CHANNEL_LAYERS: dict[str, Any] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if REDIS_URL:
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # explicit: redis-py's own default would cut a reader that has been idle for 5 seconds
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 30, "socket_connect_timeout": 5}]},
    }

# ---------------------------------------------------------------- applications

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "agents",
    "calls",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LOGIN_REDIRECT_URL = "admin:index"

LANGUAGE_CODE = "en"
TIME_ZONE = env.text("TIME_ZONE", "UTC")
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = env.text("STATIC_ROOT", str(BASE_DIR / "staticfiles"))
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# ---------------------------------------------------------------- behind TLS

if not DEBUG:
    # nginx sets this header itself and never passes a client's on
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = env.flag("SECURE_SSL_REDIRECT", True)
    SECURE_HSTS_SECONDS = env.integer("SECURE_HSTS_SECONDS", 31_536_000)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

# ---------------------------------------------------------------- logging

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
    "loggers": {
        "django": {"handlers": ["console"], "level": "INFO", "propagate": False},
        # a page that does not exist is no event
        "django.request": {"level": "ERROR"},
        # per-frame chatter of the server underneath
        "daphne": {"level": "WARNING"},
    },
}

# ---------------------------------------------------------------- the console's look

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Switchboard",
    "SITE_HEADER": "Switchboard",
    "SITE_SUBHEADER": "answers your voice agents",
    "SITE_SYMBOL": "support_agent",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("switchboard/favicon.svg")}
    ],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "COMMAND": {"search_models": True},
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "items": [
                    {
                        "title": "Calls",
                        "icon": "call",
                        "link": reverse_lazy("admin:calls_call_changelist"),
                        "permission": lambda request: request.user.has_perm("calls.view_call"),
                    },
                    {
                        "title": "Agents",
                        "icon": "support_agent",
                        "link": reverse_lazy("admin:agents_agent_changelist"),
                        "permission": lambda request: request.user.has_perm("agents.view_agent"),
                    },
                ]
            },
            {
                "title": "Staff",
                "separator": True,
                "items": [
                    {
                        "title": "Users",
                        "icon": "person",
                        "link": reverse_lazy("admin:auth_user_changelist"),
                        "permission": lambda request: request.user.has_perm("auth.view_user"),
                    },
                    {
                        "title": "Groups",
                        "icon": "group",
                        "link": reverse_lazy("admin:auth_group_changelist"),
                        "permission": lambda request: request.user.has_perm("auth.view_group"),
                    },
                ],
            },
        ],
    },
}
