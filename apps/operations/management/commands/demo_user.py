"""Make the user with whom a new clone can be tried, and print how to sign in."""

import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

USERNAME = "demo"


class Command(BaseCommand):
    """The random password is kept in var/demo_password, for the owner of the clone, and printed each time."""

    help = "Make a demo user, who may use the admin too, with a random password. Only with DEBUG=1."

    def handle(self, *_args: Any, **_options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("a demo user is for your own machine only: set DEBUG=1, or createsuperuser")
        password = _remembered_password(Path(settings.BASE_DIR) / "var" / "demo_password")
        user, _ = get_user_model().objects.get_or_create(
            username=USERNAME, defaults={"is_staff": True, "is_superuser": True}
        )
        if not user.check_password(password):
            user.set_password(password)
            user.save()
        self.stdout.write(f"Sign in as {USERNAME} with the password {password}")


def _remembered_password(path: Path) -> str:
    if path.exists():
        return path.read_text(encoding="utf-8")
    path.parent.mkdir(exist_ok=True)
    password = secrets.token_urlsafe(12)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(password)
    return password
