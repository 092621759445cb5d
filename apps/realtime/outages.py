"""What a failed commit was: the database's fault, a collision that passes, or the fault of what was to be written.

Drivers raise the same OperationalError for "the server is gone" and for "this statement took too long"; only the code
behind it tells them apart. An outage is waited for with everything as it is. Anything else was brought by one run,
and would be brought again: it is searched for, and fails that run only.
"""

import enum
import sqlite3

from django.db import Error, InterfaceError, ProgrammingError, connection


class Trouble(enum.Enum):
    """Why a commit failed."""

    OUTAGE = "outage"  # nobody can commit now; the same batches are handed over again when the database is back
    HELD = "held"  # somebody else holds a row for longer than this commit may wait
    COLLISION = "collision"  # a deadlock, a timeout, an interrupt: worth another try, not for ever
    CULPRIT = "culprit"  # the database, or a participant, refuses what a run brought


# SQLSTATE classes and codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_OUTAGE_STATES = ("08", "57P", "58", "53100", "53300", "53400", "25006")
_HELD_STATE = "55P03"
_COLLISION_STATES = ("40", "57014")

_OUTAGE_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_COLLISION_CODES = frozenset({sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ABORT})
_PRIMARY_CODE = 0xFF  # of SQLite's extended codes


def trouble_of(error: Exception) -> Trouble:
    """Judge what a transaction on this thread's connection raised, after it was rolled back.

    What looks like a run's own fault is an outage after all if the database does not answer a question now.
    """
    if not isinstance(error, Error):
        return Trouble.CULPRIT
    trouble = _by_code(error)
    return trouble if trouble is Trouble.OUTAGE or _answers() else Trouble.OUTAGE


def _by_code(error: Error) -> Trouble:
    if isinstance(error, InterfaceError):
        return Trouble.OUTAGE
    return _by_sqlite_code(error) if connection.vendor == "sqlite" else _by_state(error)


def _by_sqlite_code(error: Error) -> Trouble:
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    if code is None:
        # Our own backend's word when no turn to write came, and the driver's when the connection was closed under it.
        text = str(error)
        away = "database is locked" in text or (isinstance(error, ProgrammingError) and "closed database" in text)
        return Trouble.OUTAGE if away else Trouble.CULPRIT
    primary = code & _PRIMARY_CODE
    if primary in _OUTAGE_CODES:
        return Trouble.OUTAGE
    return Trouble.COLLISION if primary in _COLLISION_CODES else Trouble.CULPRIT


def _by_state(error: Error) -> Trouble:
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None)
    if state is None:
        # A failure without a state never came from the server: the driver lost the connection. A value that the
        # driver itself cannot send is a DataError, and our own mistake comes without any cause.
        lost = cause is not None and type(cause).__name__ in {"OperationalError", "InterfaceError"}
        return Trouble.OUTAGE if lost else Trouble.CULPRIT
    if state.startswith(_OUTAGE_STATES):
        return Trouble.OUTAGE
    if state == _HELD_STATE:
        return Trouble.HELD
    return Trouble.COLLISION if state.startswith(_COLLISION_STATES) else Trouble.CULPRIT


def _answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except Error:
        connection.close()
        return False
    return True
