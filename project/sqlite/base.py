"""Django's SQLite backend, in which the write transactions of a process wait in line instead of polling.

SQLite has one writer at a time, and a connection that finds it taken sleeps and tries again, for 1 to 100 ms, in no
order. With many writers one of them starves: while a hundred users began a run at once, the log's writer was held up
for 1.1 s, and with it every tab. All threads of a process share a lock here, so that each waits for those before it
and no longer. Other processes are still polled for, as SQLite does.
"""

import functools
import threading
from typing import Any

from django.db import OperationalError
from django.db.backends.sqlite3 import base


@functools.cache
def _turn(database: str) -> threading.Lock:
    """One lock for each file: what it guards is the file's one writer, which is as global as a thing can be."""
    del database
    return threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    """See the module. `OPTIONS["timeout"]` bounds the wait, in seconds, as it does SQLite's own."""

    _has_turn = False

    def _start_transaction_under_autocommit(self) -> None:
        timeout_s = float(self.settings_dict["OPTIONS"].get("timeout", 5))
        if not self._lock.acquire(timeout=timeout_s):
            raise OperationalError(f"database is locked: no turn to write within {timeout_s:g} s")
        self._has_turn = True
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]  # not in the stubs
        except BaseException:
            self._pass_turn()
            raise

    def _commit(self) -> Any:
        try:
            return super()._commit()  # type: ignore[misc]  # not in the stubs
        finally:
            self._pass_turn()

    def _rollback(self) -> Any:
        try:
            return super()._rollback()  # type: ignore[misc]  # not in the stubs
        finally:
            self._pass_turn()

    def _close(self) -> Any:
        try:
            return super()._close()  # type: ignore[misc]  # not in the stubs
        finally:
            self._pass_turn()

    @property
    def _lock(self) -> threading.Lock:
        return _turn(str(self.settings_dict["NAME"]))

    def _pass_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._lock.release()
