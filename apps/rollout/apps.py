from django.apps import AppConfig
from django.core.checks import Tags, register


class RolloutConfig(AppConfig):
    """The rollout room."""

    name = "apps.rollout"
    label = "rollout"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and close the gaps of waffle that need the finished flag model."""
        from apps.rollout import checks, waffle_gaps  # noqa: PLC0415 - they need the models, loaded by now

        register(checks.check_seams)
        register(checks.check_waffle_settings)
        register(checks.check_rows, Tags.database)
        waffle_gaps.close_gaps()
