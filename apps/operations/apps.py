"""The room of those who run Turnout: what a process says about itself, and the audits that read it."""

from django.apps import AppConfig


class OperationsConfig(AppConfig):
    """Label `operations`. Nothing happens at start-up: the heartbeat is opened by the composition root."""

    name = "apps.operations"
    label = "operations"
    verbose_name = "Operations"
