"""`manage.py delete_user USERNAME`: the same calls as the admin's delete action."""

import json
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.operations.deletion import UserUnknown, begin_deletion, delete_now, what_remains
from apps.realtime.models import Tombstone
from apps.vocabulary import UserId


class Command(BaseCommand):
    help = (
        "Delete a user with everything that is theirs. From the first commit on nothing more is written for them and "
        "their sockets are closed; what is left is removed in steps, here and by any running server."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--json", action="store_true", help="print one JSON object for machines")

    def handle(self, *, username: str, json: bool, **_: Any) -> None:
        model = get_user_model()
        user = model.objects.filter(**{model.USERNAME_FIELD: username}).first()
        if user is None:
            raise CommandError(f"there is no user {username!r}; a deletion that was begun goes on by itself")
        user_id = UserId(user.pk)
        try:
            begin_deletion(user_id)
        except UserUnknown as error:  # somebody else was faster
            raise CommandError(str(error)) from None
        removed = delete_now(user_id, settings.CONFIGURATION.retention_step_rows)
        finished = Tombstone.objects.filter(pk=user_id, finished_at__isnull=False).exists()
        self.stdout.write(_json(user_id, removed, finished) if json else _text(user_id, username, removed, finished))


def _json(user_id: UserId, removed: Any, finished: bool) -> str:  # noqa: FBT001 - a fact, not a choice
    return json.dumps({"user_id": user_id, "removed": removed, "left": what_remains(user_id), "finished": finished})


def _text(user_id: UserId, username: str, removed: Any, finished: bool) -> str:  # noqa: FBT001 - as above
    rows = ", ".join(f"{number} {kind}" for kind, number in removed.items()) or "no rows"
    end = "Nothing is left." if finished else "A running server looks once more within seconds."
    return f"User {username} ({user_id}) is deleted: {rows}. {end}"
