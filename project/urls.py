"""Every URL of the site. The socket is at /ws/chat/, see project/asgi.py."""

from apps.chat.api import api
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("apps.operations.urls")),
    path("", include("apps.chat.urls")),
    path("api/", api.urls),
    path("admin/", admin.site.urls),
]
