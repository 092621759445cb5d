"""`manage.py check_history`: judges what clients wrote down against what the log holds."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandParser
from django.db import Error

from apps.findings import CouldNotLook, Exit, blind_json, blind_text
from apps.operations.histories import HistoryCheck, MalformedHistory
from apps.realtime.models import Segment

TITLE = "History"


class Command(BaseCommand):
    help = "Judge the histories that clients wrote (JSON lines) against the log: nothing lost, doubled, out of order."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, help="histories of clients, one JSON object a line")
        parser.add_argument("--log", type=Path, help="what was logged, one JSON object a line; default: the database")
        parser.add_argument("--json", action="store_true", help="print one JSON object for machines")

    def handle(self, *, files: list[Path], log: Path | None, json: bool, **_: Any) -> None:
        check = HistoryCheck()
        try:
            for user, entry in _stored() if log is None else _written(log):
                check.logged(user, entry)
            for file in files:
                for line in _lines(file):
                    check.said(line)
        except (OSError, ValueError, Error, MalformedHistory) as error:
            why = CouldNotLook(str(error) or type(error).__name__)
            self.stdout.write((blind_json if json else blind_text)(TITLE, why))
            raise SystemExit(int(Exit.COULD_NOT_LOOK)) from None
        report = check.report()
        self.stdout.write(report.as_json() if json else report.as_text())
        if report.exit is not Exit.KEPT:
            raise SystemExit(int(report.exit))


def _stored() -> Iterator[tuple[str, dict[str, Any]]]:
    rows = Segment.objects.order_by("user_id", "first_seq").values_list("user_id", "payload")
    for user_id, payload in rows.iterator(chunk_size=500):
        for entry in orjson.loads(payload):
            yield str(user_id), entry


def _written(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in _lines(file):
        if not isinstance(line.get("event"), dict) or not {"user", "seq", "thread_id", "run_id"} <= line.keys():
            raise MalformedHistory(f"{file}: a line of the log has user, seq, thread_id, run_id and event")
        yield str(line["user"]), line


def _lines(file: Path) -> Iterable[dict[str, Any]]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            try:
                parsed = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise MalformedHistory(f"{file}, line {number}: not JSON: {error}") from error
            if not isinstance(parsed, dict):
                raise MalformedHistory(f"{file}, line {number}: not a JSON object")
            yield parsed
