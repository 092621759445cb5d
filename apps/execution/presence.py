"""The lock of a process: held while it lives, given back by the system when it dies, however it dies.

On SQLite all processes share a host, and the lock is the kernel's on a file beside the database. On PostgreSQL it is a
session's advisory lock: the server gives it back when the connection breaks, which a killed process' does at once, and
a machine's that lost its power only when TCP gives up; that is what a lease's time to live is for. Through a pooler in
transaction mode no session belongs to anyone: give processes that execute runs a direct connection.
"""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Protocol
from uuid import UUID

from django.db import connection

LOCKS = "processes"  # the folder of the locks, beside SQLite's file


class ProcessLock(Protocol):
    """The locks of all processes of a deployment, as one of them sees them. Used by one thread."""

    def hold(self, process_id: str) -> None:
        """Have the own lock, again if it was lost. Raises the database's errors."""
        ...

    def is_free(self, process_id: str) -> bool:
        """Whether nobody holds the lock of this process. Raises the database's errors."""
        ...

    def forget(self, process_id: str) -> None:
        """Remove what a process that is gone has left."""
        ...

    def release(self) -> None:
        """Give the own lock back."""
        ...


def process_lock() -> ProcessLock:
    """The lock that fits the database."""
    if connection.vendor == "postgresql":
        return AdvisoryLock()
    name = str(connection.settings_dict["NAME"])
    in_memory = "memory" in name  # such a database has one process
    return FileLock(Path(tempfile.gettempdir()) if in_memory else Path(name).parent / LOCKS)


class FileLock:
    """A file a process, in one folder of one host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: int | None = None
        self._path: Path | None = None

    def hold(self, process_id: str) -> None:
        if self._held is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path_of(process_id)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody looks whether it is free, at this moment; the next beat tries again
            os.close(descriptor)
            return
        self._held, self._path = descriptor, path

    def is_free(self, process_id: str) -> bool:
        try:
            descriptor = os.open(self._path_of(process_id), os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)

    def forget(self, process_id: str) -> None:
        if self.is_free(process_id):
            self._path_of(process_id).unlink(missing_ok=True)

    def release(self) -> None:
        if self._held is None or self._path is None:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._held)
        self._held = self._path = None

    def _path_of(self, process_id: str) -> Path:
        return self._folder / f"turnout-{UUID(process_id)}.lock"  # ids of others come from rows: no path but this


class AdvisoryLock:
    """A session lock on the connection of the thread that calls. A new connection takes it again."""

    def __init__(self) -> None:
        self._session: object | None = None  # the driver's connection that holds it

    def hold(self, process_id: str) -> None:
        connection.ensure_connection()
        if self._session is connection.connection:
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_key(process_id),))
            (taken,) = cursor.fetchone()
        if taken:  # else the server has not noticed yet that the old connection is gone
            self._session = connection.connection

    def is_free(self, process_id: str) -> bool:
        # Looked up rather than tried: who tries the lock has it for a moment, in which its owner would miss it.
        key = _key(process_id) & 0xFFFF_FFFF_FFFF_FFFF
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                " AND classid::bigint = %s AND objid::bigint = %s LIMIT 1",
                (key >> 32, key & 0xFFFF_FFFF),
            )
            return cursor.fetchone() is None

    def forget(self, process_id: str) -> None:
        """Nothing is left: the server gave the lock back."""

    def release(self) -> None:
        """The connection's end is the lock's."""
        self._session = None


def _key(process_id: str) -> int:
    """64 bits of the id's random part, as PostgreSQL's bigint."""
    low = UUID(process_id).int & 0xFFFF_FFFF_FFFF_FFFF
    return low - (1 << 64) if low >> 63 else low
