"""Django's SQLite backend, in which the writers of a process wait in line instead of polling.

SQLite has one writer at a time, and a connection that finds it taken sleeps and tries again, for 1 to 100 ms, in no
order. With many writers one of them starves: while a hundred users began a run at once, the log's writer was held up
for 1.1 s, and with it every tab. All threads of a process stand in one line for a file here, so that each waits for
those before it and no longer: with whole transactions, and with single statements that write by themselves, of which
one was seen to wait 1.4 s while transactions took turns. Other processes are still polled for, as SQLite does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError
from django.db.backends.sqlite3 import base

from project.sqlite.line import Line, Turn

# What these do to the file, if anything, they do in a transaction that has its turn already.
_NO_WRITE = ("SELECT", "PRAGMA", "EXPLAIN", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH")


class DatabaseWrapper(base.DatabaseWrapper):
    """See the module. `OPTIONS["timeout"]` bounds the wait, in seconds, as it does SQLite's own."""

    # By process and file: what a line guards, the one writer of a file, is as global as a thing can be, and a process
    # that was forked has a line of its own, whatever its parent held at that moment.
    _lines: dict[tuple[int, str], Line] = {}  # noqa: RUF012 - shared on purpose
    _turn: tuple[int, Line, Turn] | None = None

    def create_cursor(self, name: Any = None) -> Any:  # noqa: ARG002 - Django's signature
        """A cursor whose writing statements take a turn of their own outside of transactions."""
        return self.connection.cursor(factory=lambda connection: _Cursor(connection, self))

    @contextmanager
    def turn_for(self, query: str) -> Iterator[None]:
        """The turn for one statement, if it needs one. Raises OperationalError when it does not come in time."""
        if self._turn is not None or query.lstrip()[:9].upper().startswith(_NO_WRITE):
            yield
            return
        self._take_turn()
        try:
            yield
        finally:
            self._pass_turn()

    def _start_transaction_under_autocommit(self) -> None:
        self._take_turn()
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

    def _take_turn(self) -> None:
        timeout_s = float(self.settings_dict["OPTIONS"].get("timeout", 5))
        process, file = os.getpid(), os.path.realpath(str(self.settings_dict["NAME"]))
        line = self._lines.get((process, file)) or self._lines.setdefault((process, file), Line())
        turn = line.take(timeout_s, self.connection.close)  # SQLite's own connection, which rolls back
        if turn is None:
            raise OperationalError(f"database is locked: no turn to write within {timeout_s:g} s")
        self._turn = process, line, turn

    def _pass_turn(self) -> None:
        held, self._turn = self._turn, None
        if held is not None and held[0] == os.getpid():
            held[1].pass_on(held[2])


class _Cursor(base.SQLiteCursorWrapper):
    def __init__(self, connection: Any, wrapper: DatabaseWrapper) -> None:
        super().__init__(connection)
        self._wrapper = wrapper

    def execute(self, query: str, params: Any = None) -> Any:
        with self._wrapper.turn_for(query):
            return super().execute(query, params)

    def executemany(self, query: str, param_list: Any) -> Any:
        with self._wrapper.turn_for(query):
            return super().executemany(query, param_list)
