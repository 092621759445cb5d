"""The project's own app: what it says at `manage.py check`."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, register

from project import checks
from project.memory import in_words


def check_memory(**_: Any) -> list[CheckMessage]:
    """How much memory users can make a process hold under these bounds. Never more than information."""
    hint = "docs/explanation/memory.md has the formula; every factor is a setting"
    return [Info(f"A process holds {in_words(settings.CONFIGURATION)}.", hint=hint, id="turnout.I001")]


def check_execution(**_: Any) -> list[CheckMessage]:
    """Whether anybody would execute what is admitted."""
    immediate = settings.TASKS["default"]["BACKEND"] == "django.tasks.backends.immediate.ImmediateBackend"
    if settings.CONFIGURATION.execution != "workers" or not immediate:
        return []
    hint = "set DATABASE_URL to PostgreSQL, or TASKS to a backend with workers of its own; see docs/how-to/scale-out.md"
    return [Error("TURNOUT_EXECUTION=workers, and nobody would execute a run.", hint=hint, id="turnout.E201")]


class ProjectConfig(AppConfig):
    """Registers the checks of bounds, of who executes, and of what an installation stands on."""

    name = "project"

    def ready(self) -> None:
        """Register, and nothing else."""
        register(check_memory)
        register(check_execution)
        register(checks.check_layer)
        register(checks.check_disk)
        register(checks.check_pool)
        register(checks.check_sessions)
        register(checks.check_redis_password, Tags.security, deploy=True)
        register(checks.check_commits, Tags.database)
