"""Where pages are. The platform's socket is not here but in asgi.py."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

import project.staff  # noqa: F401 - puts users and groups into the console

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]
