"""`manage.py faults`: the fault drills, on a disposable copy of this deployment."""

import asyncio
import secrets
import socket
import tempfile
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import environ
from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from apps.findings import CouldNotLook, Exit, blind_json, blind_text
from apps.operations.faults.disposable import (
    CopyFailed,
    DisposableCopy,
    NotDisposable,
    find_redis,
    refuse_the_live_one,
)
from apps.operations.faults.drills import DRILLS
from apps.operations.faults.rehearsal import TITLE, DrillOptions, Rehearsal, rehearse


class Command(BaseCommand):
    help = (
        "Do to a disposable copy of this deployment what goes wrong in production, and judge what tabs were sent. "
        "Starts servers of its own; refuses the database of this deployment, and any on which a process lives."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database-url", help="a disposable copy; default: a new SQLite database, thrown away")
        parser.add_argument("--drill", action="append", choices=list(DRILLS), help="only this one; may be repeated")
        parser.add_argument("--processes", type=_within(1, 8), default=2, help="web processes (1-8, default 2)")
        parser.add_argument("--users", type=_within(2, 200), default=10, help="tabs, one a user (2-200, default 10)")
        parser.add_argument("--seconds", type=_within(1, 600), default=8, help="load of each drill (1-600, default 8)")
        parser.add_argument("--faults", type=_within(1, 100), default=3, help="faults of each drill (1-100, default 3)")
        parser.add_argument("--seed", type=int, help="replay the chances of this seed")
        parser.add_argument("--json", action="store_true", help="print one JSON object for machines")

    def handle(self, *, json: bool, **options: Any) -> None:
        seed = options["seed"] if options["seed"] is not None else secrets.randbits(32)
        drilling = DrillOptions(
            users=options["users"],
            load_s=float(options["seconds"]),
            faults=options["faults"],
            limit_s=10.0 * options["seconds"] + 60.0,
            seed=seed,
            drain_timeout_s=settings.CONFIGURATION.drain_timeout_s,
        )
        names = options["drill"] or list(DRILLS)
        try:
            rehearsal = asyncio.run(_rehearse(options["database_url"], options["processes"], names, drilling))
        except (NotDisposable, CopyFailed, OSError) as error:
            why = CouldNotLook(str(error))
            self.stdout.write((blind_json if json else blind_text)(TITLE, why))
            raise SystemExit(int(Exit.COULD_NOT_LOOK)) from None
        self.stdout.write(rehearsal.as_json() if json else rehearsal.as_text())
        if rehearsal.exit is not Exit.KEPT:
            raise SystemExit(int(rehearsal.exit))


async def _rehearse(database_url: str | None, processes: int, names: list[str], options: DrillOptions) -> Rehearsal:
    with tempfile.TemporaryDirectory(prefix="turnout-faults-") as made:
        folder = Path(made)
        url = database_url or f"sqlite:///{folder / 'copy.sqlite3'}"
        refuse_the_live_one(url, settings.DATABASES["default"], environ.Env.db_url_config(url))
        async with DisposableCopy(folder, url, processes, find_redis(), _free_port()) as copy:
            return await rehearse(copy, names, options)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _within(least: int, most: int) -> Any:
    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read
