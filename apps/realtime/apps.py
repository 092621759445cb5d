from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    """The room that reaches the tabs: log, cursor, emitter, pool."""

    name = "apps.realtime"
    label = "realtime"
    verbose_name = "Realtime"
