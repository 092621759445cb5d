"""`manage.py create_token USERNAME [--create-user]`: a bearer token, and nothing else, on standard output."""

import json
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from apps.chat.authentication import identity_of, issue_token

COULD_NOT_LOOK = 2  # exit code, as of all commands


class Command(BaseCommand):
    help = "Prints a new bearer token of a user. It is shown this once; the database keeps its hash."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--create-user", action="store_true", help="make the user if there is none")
        parser.add_argument("--json", action="store_true", help='print {"token": ...} instead of the bare token')

    def handle(self, *_args: Any, **options: Any) -> None:
        with transaction.atomic():
            user = _user(options["username"], create=options["create_user"])
            token = issue_token(identity_of(user).user_id, "create_token")
        self.stdout.write(json.dumps({"token": token}) if options["json"] else token)


def _user(username: str, *, create: bool) -> AbstractUser:
    users = get_user_model()
    user = users.objects.filter(username=username).first()
    if user is None and not create:
        raise CommandError(f"there is no user {username!r}; add --create-user to make one", returncode=COULD_NOT_LOOK)
    if user is None:
        user = users(username=username)
        user.set_unusable_password()
        try:
            user.full_clean()
        except ValidationError as invalid:
            reasons = " ".join(invalid.messages)
            raise CommandError(f"{username!r} cannot be a user: {reasons}", returncode=COULD_NOT_LOOK) from None
        user.save()
    if not user.is_active:
        raise CommandError(f"the user {username!r} is disabled; a token would not work", returncode=COULD_NOT_LOOK)
    return user
