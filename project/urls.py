"""Every URL of the site. The socket is at /ws/chat/, see project/asgi.py."""

from django.contrib import admin
from django.urls import include, path

from apps.chat.api import api
from project.switch import switch_urls

urlpatterns = [
    path("", include("apps.operations.urls")),
    path("", include("apps.chat.urls")),
    path("api/", api.urls),
    *switch_urls(),
    path("admin/", admin.site.urls),
]
