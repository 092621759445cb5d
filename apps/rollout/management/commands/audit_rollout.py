"""`manage.py audit_rollout SEAM`: says whether the legacy code may be deleted."""

from argparse import ArgumentParser
from typing import Any, override

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand

from apps.findings import CouldNotLook, Exit, blind_json, blind_text
from apps.rollout.checks import check_seams
from apps.rollout.readiness import DAYS_AT_ON, readiness
from apps.rollout.seams import UnknownSeam


class Command(BaseCommand):
    help = "May the legacy code of a seam be deleted? Exits 0 it may, 1 not yet, 2 could not look."
    requires_system_checks = ()  # an audit is wanted most when something else is broken

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("seam")
        parser.add_argument("--days", type=float, default=DAYS_AT_ON, help="days that it must have been at on")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    @override
    def handle(self, *_: Any, **options: Any) -> None:
        try:
            check_seams()  # imports each legacy path, so that the file that defines it is known
            report = readiness(options["seam"], options["days"])
        except (UnknownSeam, ImproperlyConfigured, CouldNotLook) as error:
            why = error if isinstance(error, CouldNotLook) else CouldNotLook(str(error.args[0]))
            blind = blind_json if options["json"] else blind_text
            self.stdout.write(blind(f"Rollout of {options['seam']}", why))
            raise SystemExit(int(Exit.COULD_NOT_LOOK)) from None
        self.stdout.write(report.as_json() if options["json"] else report.as_text())
        if report.exit is not Exit.KEPT:
            raise SystemExit(int(report.exit))
