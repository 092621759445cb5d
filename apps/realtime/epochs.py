"""New epochs after a restore, and the witness who notices that there was one.

A database that comes back from a backup, or a standby that was promoted too early, gives the same `seq` again to other
events. Tags tell the two histories apart where a tab comes back with a position; an epoch tells it at once, to every
tab. Nobody but the operator knows of a restore, so each process remembers how far the database had come (its mark:
a name that only gets newer, a beat that only rises), in memory and in a file outside of the database, and says when it
finds it further back.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from django.db import connection, transaction

from apps.realtime.database import DatabaseThreads
from apps.realtime.models import HistoryMark, Stream, new_epoch
from apps.vocabulary import UserId, new_id

logger = logging.getLogger(__name__)

WENT_BACK = "the database is older than it was; after a restore, run manage.py rotate_epochs"


@dataclass(frozen=True, slots=True)
class SeenMark:
    """How far a database had come when somebody looked."""

    name: str
    beat: int


def is_older(seen: SeenMark, remembered: SeenMark) -> bool:
    """Whether a database that is at `seen` cannot be one that was at `remembered` and went on. Pure.

    A newer name is a new database, or one whose epochs were renewed: then it is right that the past is gone.
    """
    return seen.name < remembered.name or (seen.name == remembered.name and seen.beat < remembered.beat)


def rotate_some(after: UserId, most: int) -> UserId | None:
    """Give the next streams behind user `after` a new epoch each, in one transaction; the last user, None at the end.

    Head, tail and their tags stay: the events are what they were, only the history has another name.
    """
    with transaction.atomic():
        rows = Stream.objects.select_for_update(no_key=True).filter(user_id__gt=after).order_by("user_id")
        users = list(rows.values_list("user_id", flat=True)[:most])
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE realtime_stream SET epoch = %s WHERE user_id = %s", [(new_epoch(), user) for user in users]
            )
    return UserId(users[-1]) if users else None


def renew_mark() -> str:
    """Name the history anew, so that all witnesses are content with it; returns the name. The last step of a rotation:
    one that was cut off is asked for again.
    """
    HistoryMark.objects.all().current()
    name = new_id()
    HistoryMark.objects.filter(pk=1).update(name=name)
    return name


class Witness:
    """Remembers how far the database had come. One a process; `look` belongs into a `Periodic`.

    `went_back_now` is called once for each restore that is noticed, on the event loop: tabs that are connected have
    positions of a history that is gone, in cursors that nobody would judge again.

    Limits: what was lost before the first beat after the backup (`retention_s`) goes unnoticed, and so does a restore
    while no process lives and the file is gone with its host.
    """

    def __init__(self, database: DatabaseThreads, file: Path | None, went_back_now: Callable[[], None]) -> None:
        self._database = database
        self._file = file
        self._went_back_now = went_back_now
        self._remembered: SeenMark | None = None
        self.went_back = False

    async def look(self) -> None:
        """Compare the database with what is remembered, and remember how far it is now."""
        before = self.went_back
        await self._database.call(self._look)
        if self.went_back and not before:
            self._went_back_now()

    def _look(self) -> None:
        mark = HistoryMark.objects.all().current()
        seen = SeenMark(mark.name, mark.beat)
        newest = max(
            (one for one in (self._remembered, self._written()) if one is not None),
            key=lambda one: (one.name, one.beat),
            default=seen,
        )
        went_back = is_older(seen, newest)
        if went_back and not self.went_back:
            logger.critical("%s (it is at %s, beat %d, and was at %s, beat %d)", WENT_BACK, *_both(seen, newest))
        self.went_back = went_back
        if not went_back:
            self._remembered = seen
            if seen != newest or self._file is not None:
                self._write(seen)

    def _written(self) -> SeenMark | None:
        if self._file is None:
            return None
        try:
            written = orjson.loads(self._file.read_bytes())
            return SeenMark(str(written["name"]), int(written["beat"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("what was remembered of the database in %s cannot be read: %s", self._file, error)
            return None

    def _write(self, seen: SeenMark) -> None:
        if self._file is None:
            return
        # Put in place whole: a process that dies here, or another that writes too, leaves no half a file.
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            draft.write_bytes(orjson.dumps({"name": seen.name, "beat": seen.beat}))
            draft.replace(self._file)
        except OSError as error:
            logger.warning("how far the database is cannot be remembered in %s: %s", self._file, error)
            with contextlib.suppress(OSError):
                draft.unlink()


def _both(seen: SeenMark, newest: SeenMark) -> tuple[str, int, str, int]:
    return seen.name, seen.beat, newest.name, newest.beat
