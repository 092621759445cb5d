"""Locking rows that nobody else holds, without waiting for those that somebody does.

The group commit serves all users of a process; were it to wait for one user's row, it would make all of them wait. On
SQLite `BEGIN IMMEDIATE` has locked the whole database already, and every row that exists is free.
"""

import enum
from collections.abc import Collection
from typing import Any

from django.db import connection, models


class Locking(enum.Enum):
    """What to do about a row that somebody else holds."""

    WAIT = "wait"
    SKIP = "skip"

    def skips(self) -> bool:
        """Whether rows are to be passed over, on a database that has row locks."""
        return self is Locking.SKIP and can_skip_locked()


def can_skip_locked() -> bool:
    """Whether this database has row locks that can be passed over."""
    return bool(connection.features.has_select_for_update_skip_locked)


def lock_free(rows: models.QuerySet[Any], keys: Collection[Any]) -> frozenset[Any]:
    """Lock those of the rows with these primary keys that nobody else holds, in the order of the keys.

    Returns the keys of those that somebody holds. A row that does not exist is nobody's and not among them.
    """
    free = rows.select_for_update(no_key=True, skip_locked=can_skip_locked()).filter(pk__in=keys).order_by("pk")
    return held_of(rows, set(keys) - set(free.values_list("pk", flat=True)))


def held_of(rows: models.QuerySet[Any], passed_over: Collection[Any]) -> frozenset[Any]:
    """Those of the keys that a locking query passed over whose rows exist: somebody else holds them."""
    if not passed_over or not can_skip_locked():
        return frozenset()
    return frozenset(rows.filter(pk__in=passed_over).values_list("pk", flat=True))
