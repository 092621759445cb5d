"""The addresses that machines ask; see `apps.operations.health`."""

from django.urls import path

from apps.operations import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
]
