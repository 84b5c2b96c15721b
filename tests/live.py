"""Calls against a real server: async tests as plain functions, and agents made for them."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine
from typing import Any

from tests.servers import Daphne

SCRIPTED = {"DJANGO_SETTINGS_MODULE": "tests.scripted"}


def played(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An async test, run to its end; it has a minute."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


def add_agents(server: Daphne, **agents: dict[str, Any]) -> dict[str, str]:
    """Makes agents with these settings; the URL of each, with a key of its own."""
    code = f"""
import json
from agents.models import Agent, ConnectionKey
urls = {{}}
for name, settings in json.loads({json.dumps(json.dumps(agents))}).items():
    agent = Agent.objects.create(name=name, slug=name.replace("_", "-"), **settings)
    urls[name] = ConnectionKey.create(agent)[1]
print(json.dumps(urls))
"""
    keys = json.loads(server.shell(code).strip().splitlines()[-1])
    return {name: f"{server.ws_url}/{key}" for name, key in keys.items()}


def set_default(server: Daphne, **settings: Any) -> None:
    """Changes the default agent, as an operator would."""
    server.shell(
        "import json; from agents.models import Agent; "
        f"Agent.objects.filter(is_default=True).update(**json.loads({json.dumps(json.dumps(settings))}))"
    )
