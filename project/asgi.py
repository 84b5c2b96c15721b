"""The two doors: the platform's socket, which has no session and no Origin, and the console's pages."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
pages = get_asgi_application()

from calls.routing import platform_door  # noqa: E402 - models must be loaded first

application = ProtocolTypeRouter({"http": pages, "websocket": platform_door})
