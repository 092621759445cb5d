"""What the audits have in common: checks that look and may fix, and the command that prints what they saw."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, override

from django.core.management.base import BaseCommand, CommandParser
from django.db import Error

from apps.findings import CouldNotLook, Exit, Line, Report, blind_json, blind_text, examples

EXAMPLES = 3  # named in a line; the count beside them is exact


@dataclass(slots=True)
class Tally:
    """What one check saw: how much it looked at, how much of it is wrong, and the first few by name."""

    what: str
    seen: int = 0
    wrong: int = 0
    named: list[str] = field(default_factory=list)
    note: str = ""

    def add_wrong(self, name: str) -> None:
        """Count one thing that is wrong; however many there are, only the first few are kept."""
        self.wrong += 1
        if len(self.named) < EXAMPLES:
            self.named.append(name)

    def line(self, name: str, next_step: str) -> Line:
        """The finding: kept when nothing is wrong."""
        note = f" ({self.note})" if self.note else ""
        if not self.wrong:
            return Line(name, kept=True, detail=f"{self.seen} {self.what}{note}")
        more = self.wrong - len(self.named)
        named = examples(self.named, EXAMPLES) + (f" and {more} more" if more else "")
        return Line(
            name,
            kept=False,
            detail=f"{self.wrong} of {self.seen} {self.what}{note}: {named}",
            next_step=next_step,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: `look` judges it and changes nothing; `fix`, where there is one, closes what it can."""

    name: str
    look: Callable[[], Tally]
    next_step: str
    fix: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """All checks of one audit, in the order in which they are shown and fixed."""

    title: str
    checks: tuple[Check, ...]

    def report(self) -> Report:
        """Look at everything. Raises CouldNotLook when the database cannot be asked."""
        try:
            return Report(self.title, tuple(check.look().line(check.name, check.next_step) for check in self.checks))
        except Error as error:
            raise CouldNotLook(_first_line(error)) from error

    def fix(self) -> None:
        """Close what can be closed. Raises CouldNotLook when the database cannot be asked."""
        try:
            for check in self.checks:
                if check.fix is not None:
                    check.fix()
        except Error as error:
            raise CouldNotLook(_first_line(error)) from error


class AuditCommand(BaseCommand, ABC):
    """`--fix` first closes what it can, then all is looked at again; exit status as `apps.findings.Exit`."""

    # An audit is wanted most when a deployment is half broken: no system check may stand in its way.
    requires_system_checks = ()

    @abstractmethod
    def audit(self) -> Audit:
        """The audit that this command runs."""

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fix", action="store_true", help="close what can be closed, then look")
        parser.add_argument("--json", action="store_true", help="print one JSON object for machines")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        audit = self.audit()
        try:
            if options["fix"]:
                audit.fix()
            report = audit.report()
        except CouldNotLook as why:
            self.stdout.write((blind_json if options["json"] else blind_text)(audit.title, why))
            raise SystemExit(int(Exit.COULD_NOT_LOOK)) from None
        self.stdout.write(report.as_json() if options["json"] else report.as_text())
        if report.exit is not Exit.KEPT:
            raise SystemExit(int(report.exit))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"the database could not be asked: {text.splitlines()[0] if text else type(error).__name__}"
