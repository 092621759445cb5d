"""A bounded pool of threads for the ORM, so that no socket ever waits for another user's query.

Channels and `sync_to_async` run the ORM in one shared thread: a two-second query on one socket delays a plain echo on
another by as much. Here a whole transaction is one synchronous function, called in a thread of this pool. A thread
keeps its connection from call to call (Django's own rule closes it after each request, since a server thread may
never come back; these do), and drops it when an error has left it unusable.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from django.db import connections


class DatabaseThreads:
    """`await threads.call(function, *arguments)` runs one synchronous unit of database work.

    Cancelling the await does not stop the thread: the work may still commit. Who must know awaits it shielded.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._started = 0
        self._waiting = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="turnout-db", initializer=self._count_thread)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)

    @property
    def waiting(self) -> int:
        """Calls that are queued or at work."""
        return self._waiting

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {"threads": self._started, "calls": self._waiting}

    async def call[**P, R](self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in a database thread and return what it returned, or raise what it raised."""
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: _with_usable_connection(lambda: function(*args, **kwargs))
            )
        finally:
            self._waiting -= 1

    def _count_thread(self) -> None:
        self._started += 1

    def _close(self) -> None:
        # A connection must be closed by its own thread. As many closings as there can be threads, all held at the
        # barrier, means that every thread takes exactly one; with fewer, the executor may start a thread for one.
        if self._started:
            barrier = threading.Barrier(self.threads)
            for closing in [self._executor.submit(_close_connections, barrier) for _ in range(self.threads)]:
                closing.result()
        self._executor.shutdown()


def _with_usable_connection[R](work: Callable[[], R]) -> R:
    try:
        return work()
    finally:
        for connection in connections.all(initialized_only=True):
            connection.close_at = None  # kept between calls whatever CONN_MAX_AGE says for request threads
            connection.close_if_unusable_or_obsolete()


def _close_connections(barrier: threading.Barrier) -> None:
    barrier.wait()
    connections.close_all()
