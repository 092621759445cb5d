"""`manage.py rotate_epochs`: after a restore, a new epoch for every stream."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.realtime.epochs import renew_mark, rotate_some
from apps.realtime.models import Stream
from apps.vocabulary import UserId

_STREAMS = 500  # of one transaction


class Command(BaseCommand):
    help = (
        "After a restore: give every user's stream a new epoch, so that no tab goes on from a position of the history "
        "that is gone. Tabs reload their snapshots. Asking twice is harmless."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object for machines")

    def handle(self, *_: Any, **options: Any) -> None:
        last: UserId | None = UserId(-1)
        while last is not None:
            last = rotate_some(last, _STREAMS)
        name, streams = renew_mark(), Stream.objects.count()
        if options["json"]:
            self.stdout.write(json.dumps({"streams": streams, "history": name}))
        else:
            self.stdout.write(f"{streams} streams have a new epoch; tabs that come back reload. History {name} begins.")
