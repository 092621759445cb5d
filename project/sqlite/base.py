"""Django's SQLite backend, in which the write transactions of a process wait in line instead of polling.

SQLite has one writer at a time, and a connection that finds it taken sleeps and tries again, for 1 to 100 ms, in no
order. With many writers one of them starves: while a hundred users began a run at once, the log's writer was held up
for 1.1 s, and with it every tab. All threads of a process share a lock here, so that each waits for those before it
and no longer. Other processes are still polled for, as SQLite does.
"""

import threading
from typing import Any

from django.db import OperationalError
from django.db.backends.sqlite3 import base


class DatabaseWrapper(base.DatabaseWrapper):
    """See the module. `OPTIONS["timeout"]` bounds the wait, in seconds, as it does SQLite's own."""

    # What it guards, the one writer of a file, is as global as a thing can be; and a process has one such file.
    _turn = threading.Lock()
    _has_turn = False

    def _start_transaction_under_autocommit(self) -> None:
        timeout_s = float(self.settings_dict["OPTIONS"].get("timeout", 5))
        if not self._turn.acquire(timeout=timeout_s):
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

    def _pass_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turn.release()
