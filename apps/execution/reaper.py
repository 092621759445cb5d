"""Ends the runs of processes that are gone, and asks those again that may be asked again.

Any living process does it, whoever took the dead one's lease away. What it does not get done (the database goes, it is
killed itself) the next one finds: running runs whose process holds no lease.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from django.db import InterfaceError, OperationalError

from apps.execution.leases import Gone
from apps.execution.succession import Succession
from apps.realtime.database import DatabaseThreads

logger = logging.getLogger(__name__)


class Reaper:
    """Owns the one task that ends them, one process after the other."""

    def __init__(self, database: DatabaseThreads, succession: Succession) -> None:
        self._database = database
        self._succession = succession
        self._gone: dict[str, Gone] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._processes = 0
        self._recovered = 0

    def __repr__(self) -> str:
        return f"<Reaper waiting={len(self._gone)} recovered={self._recovered}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name="reaper")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def end_runs_of(self, gone: Gone) -> None:
        """Take note of a process that is gone. On the event loop; returns at once."""
        self._gone[gone.process_id] = gone
        self._wake.set()

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {
            "waiting": len(self._gone),
            "processes_total": self._processes,
            "recovered_total": self._recovered,
        }

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._gone:
                gone = next(iter(self._gone.values()))
                try:
                    await self._end_runs_of(gone)
                except (OperationalError, InterfaceError) as error:
                    logger.warning("the runs of process %s cannot be ended yet: %s", gone.process_id, error)
                except Exception:
                    logger.exception("ending the runs of process %s failed", gone.process_id)
                # Whatever is left of it names a process without a lease, and is found again.
                self._gone.pop(gone.process_id, None)

    async def _end_runs_of(self, gone: Gone) -> None:
        run_ids = await self._database.call(self._succession.runs_of, gone.process_id)
        self._processes += gone.beat is not None
        if run_ids or gone.beat is not None:
            logger.warning("process %s is gone: %s; its %d runs end", gone.process_id, gone.why, len(run_ids))
        for run_id in run_ids:
            self._recovered += await self._database.call(self._succession.end_orphan, gone.process_id, run_id)
