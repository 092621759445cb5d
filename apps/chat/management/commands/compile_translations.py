"""Compile the catalogs in apps/*/locale, which git does not hold compiled; Babel does it, so no gettext is needed."""

from pathlib import Path
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    """Exit 0: every catalog is compiled. A CommandError names the catalog that cannot be read."""

    help = "Compile the translations of the pages, those that changed."
    requires_system_checks: list[str] = []  # noqa: RUF012 - an instance variable in Django

    def handle(self, *_args: Any, **options: Any) -> None:
        root = Path(settings.BASE_DIR)
        compiled = [path for path in sorted(root.glob("apps/*/locale/*/LC_MESSAGES/*.po")) if _compile(path)]
        if options["verbosity"]:
            self.stdout.write(f"Translations: {len(compiled)} compiled")


def _compile(source: Path) -> bool:
    target = source.with_suffix(".mo")
    if target.exists() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return False
    try:
        with source.open("rb") as lines:
            catalog = read_po(lines, locale=source.parent.parent.name, abort_invalid=True)
    except PoFileError as error:
        raise CommandError(f"{source} cannot be read: {error}") from error
    part = target.with_suffix(".part")  # a server that starts meanwhile reads the old one, or the new one, whole
    with part.open("wb") as out:
        write_mo(out, catalog)
    part.replace(target)
    return True
