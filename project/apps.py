"""The project's own app: what it says at `manage.py check`."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Info, register

from project.memory import in_words


def check_memory(**_: Any) -> list[CheckMessage]:
    """How much memory users can make a process hold under these bounds. Never more than information."""
    hint = "docs/explanation/memory.md has the formula; every factor is a setting"
    return [Info(f"A process holds {in_words(settings.CONFIGURATION)}.", hint=hint, id="turnout.I001")]


class ProjectConfig(AppConfig):
    """Registers the checks of bounds."""

    name = "project"

    def ready(self) -> None:
        """Register, and nothing else."""
        register(check_memory)
