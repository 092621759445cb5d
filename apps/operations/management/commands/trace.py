"""`manage.py trace USER SEQ`: one event's walk with times, from its row and from every live process."""

import json
import time
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser

from apps.findings import Exit
from apps.operations import trace
from apps.operations.trace import EventUnknown, StoredEvent
from apps.vocabulary import UserId

_POLL_S = 0.1


class Command(BaseCommand):
    help = "Show one event's walk: accepted, committed, hinted, sent, acknowledged, each with its time and process."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="username, or the user's number")
        parser.add_argument("seq", type=_seq)
        parser.add_argument("--json", action="store_true", help="print one JSON object for machines")

    def handle(self, *, user: str, seq: int, json: bool, **_: Any) -> None:
        try:
            user_id = _user(user)
            event = trace.stored_event(user_id, seq)
        except EventUnknown as why:
            self.stdout.write(_as_json({"error": str(why)}) if json else f"Trace: {why}")
            raise SystemExit(int(Exit.COULD_NOT_LOOK)) from None
        request = trace.ask(user_id, seq)
        try:
            silent = _wait(request)
            walked = trace.answers(request)
        finally:
            trace.forget(request)
        if json:
            self.stdout.write(_as_json({"event": asdict(event), "processes": walked, "silent": silent}))
        else:
            self.stdout.write("\n".join(_lines(event, walked, silent)))


def _seq(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a seq: a whole number from 1 on")
    return int(text)


def _user(name: str) -> UserId:
    model = get_user_model()
    found = model.objects.filter(**{model.USERNAME_FIELD: name}).first()
    if found is not None:
        return UserId(found.pk)
    if name.isascii() and name.isdecimal():
        return UserId(int(name))
    raise EventUnknown(f"there is no user {name!r}")


def _wait(request: int) -> list[str]:
    """Until every live process has answered; those that have not within three of their reports are named."""
    bounds = settings.CONFIGURATION
    deadline = time.monotonic() + 3 * bounds.report_s
    while silent := trace.unanswered(request, bounds.report_stale_s):
        if time.monotonic() > deadline:
            return silent
        time.sleep(_POLL_S)  # the database is all that both sides reach, and it tells nobody
    return []


def _lines(event: StoredEvent, walked: list[Mapping[str, Any]], silent: list[str]) -> list[str]:
    of = f"of run {event.run_id}" if event.run_id else f"in thread {event.thread_id}" if event.thread_id else ""
    lines = [
        f"seq {event.seq}: {event.type} {of}".rstrip(),
        f"{'accepted':<10}{_moment(event.accepted_at)}",
        f"{'committed':<10}{_moment(event.committed_at)}  {_after(event, event.committed_at)}",
    ]
    for process in walked:
        lines.append(process["process"])
        for mark in process["marks"]:
            where = f"  {mark['connection_id']}" if mark["connection_id"] else ""
            lines.append(f"  {mark['step']:<8}{_moment(mark['at'])}  {_after(event, mark['at'])}{where}")
        if process["known_since"] > event.committed_at:
            lines.append(f"  what it did before {_moment(process['known_since'])} is no longer known")
        elif not process["marks"]:
            lines.append("  nothing: no tab of this user was here")
    lines += [f"{process} did not answer" for process in silent]
    if not walked and not silent:
        lines.append("no process is running: hinted, sent and acknowledged are no longer known")
    return lines


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _after(event: StoredEvent, at: float) -> str:
    return f"{(at - event.accepted_at) * 1000:+.1f} ms"


def _as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value)
