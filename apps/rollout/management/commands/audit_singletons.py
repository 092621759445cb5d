"""`manage.py audit_singletons PATH`: what a code base shares between all of its users; where a migration starts."""

from argparse import ArgumentParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, override

from django.core.management.base import BaseCommand

from apps.findings import CouldNotLook, Exit, blind_json, blind_text
from apps.rollout.singleton_output import TITLE, as_json, as_sarif, as_text, exit_status
from apps.rollout.singletons import Risk, search


class Command(BaseCommand):
    help = (
        "Find shared mutable state and singletons in Python code, ranked by risk. Reads the syntax only: nothing is "
        "imported or run. Exits 0 nothing found, 1 findings, 2 could not look."
    )
    requires_system_checks = ()  # it looks at files, not at this project

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path, help="a Python file, or a folder with all below it")
        risks = [risk.name.lower() for risk in Risk]
        parser.add_argument("--at-least", choices=risks, default="low", help="leave out what is less dangerous")
        output = parser.add_mutually_exclusive_group()
        output.add_argument("--json", action="store_true", help="one JSON object on stdout")
        output.add_argument("--sarif", action="store_true", help="SARIF 2.1.0 on stdout")

    @override
    def handle(self, *_: Any, **options: Any) -> None:
        try:
            found = search(options["path"])
        except OSError as error:
            why = CouldNotLook(str(error))
            self.stdout.write((blind_json if options["json"] or options["sarif"] else blind_text)(TITLE, why))
            raise SystemExit(int(Exit.COULD_NOT_LOOK)) from None
        report = found.at_least(Risk[options["at_least"].upper()])
        if options["sarif"]:
            self.stdout.write(as_sarif(report, _version()))
        else:
            self.stdout.write((as_json if options["json"] else as_text)(report))
        if status := exit_status(report):
            raise SystemExit(int(status))


def _version() -> str:
    try:
        return version("turnout")
    except PackageNotFoundError:  # run from a clone
        return "0"
