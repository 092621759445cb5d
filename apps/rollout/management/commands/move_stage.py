import json
import sys
from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.db import DatabaseError, transaction

from apps.findings import Exit
from apps.rollout.console import SeamView
from apps.rollout.moves import acknowledge, move, operator
from apps.rollout.seams import UnknownSeam
from apps.rollout.stages import MoveRefused, Placement, Stage


class Command(BaseCommand):
    help = "Move the stage of a seam: the same call as the admin. Exits 0 moved, 1 refused, 2 could not look."
    requires_system_checks = ()  # a finding elsewhere must not keep anyone from moving a stage down at night

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("seam")
        parser.add_argument("stage", choices=[stage.value for stage in Stage])
        parser.add_argument("--reason", required=True, help="kept in the audit trail")
        parser.add_argument("--percent", type=_percent, help="share of the users, for ramp only: 0 to 100")
        parser.add_argument(
            "--expected-version", type=int, help="refuse if the stage was moved since this version was seen"
        )
        parser.add_argument("--acknowledge", action="store_true", help="acknowledge the breach first, for this reason")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *_: Any, **options: Any) -> None:
        outcome, status = _attempt(options)
        if options["json"]:
            self.stdout.write(json.dumps(outcome))
        elif status is Exit.KEPT:
            self.stdout.write("{seam} went from {from} to {to} (version {version})".format_map(outcome))
        else:
            self.stderr.write(f"{outcome['error']}: {outcome['message']}")
        if status is not Exit.KEPT:
            sys.exit(status)


def _attempt(options: dict[str, Any]) -> tuple[dict[str, Any], Exit]:
    name = options["seam"]
    try:
        expected = options["expected_version"]
        version = SeamView.read(name).version if expected is None else expected
        to, by, why = Placement.of(Stage(options["stage"]), options["percent"]), operator(), options["reason"]
        with transaction.atomic():  # a refused move leaves the breach unacknowledged
            if options["acknowledge"]:
                version = acknowledge(name, version, by, why).version
            row = move(name, version, to, by, why)
    except MoveRefused as refusal:
        return _failure(name, refusal), Exit.BROKEN
    except (UnknownSeam, ImproperlyConfigured, DatabaseError) as error:
        return _failure(name, error), Exit.COULD_NOT_LOOK
    moved = {"from": str(row.came_from), "to": str(row.went_to), "version": row.version}
    return {"seam": name, "moved": True, **moved, "by": row.by_name, "why": row.why}, Exit.KEPT


def _failure(seam: str, error: Exception) -> dict[str, Any]:
    return {"seam": seam, "moved": False, "error": type(error).__name__, "message": str(error.args[0])}


def _percent(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
