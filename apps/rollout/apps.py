from django.apps import AppConfig


class RolloutConfig(AppConfig):
    """Registers the system checks, and what keeps waffle's cache and rows right where waffle itself does not."""

    name = "apps.rollout"
    label = "rollout"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect to the flag model of this project, whichever it is."""
