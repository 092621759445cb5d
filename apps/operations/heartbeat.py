"""A process that says every few seconds that it lives and what it holds, and at its end that it ended.

What others conclude from silence (a run's owner is gone, a socket's server is gone) hangs on this, so no
failure of a report may end the reporting, and none may end the process.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

from apps.operations.census import Census
from apps.operations.models import ProcessReport
from apps.realtime.database import DatabaseThreads

logger = logging.getLogger(__name__)


class Heartbeat:
    """Owns the one task that reports. Entering writes the first report, leaving the last: what was held then.

    Open it first and leave it last: a count above 0 in the last report is a thing that clean-up forgot.
    """

    def __init__(
        self,
        database: DatabaseThreads,
        process_id: str,
        census: Census,
        interval_s: float,
        *,
        kind: str,
        version: str,
    ) -> None:
        self.process_id = process_id
        self._database = database
        self._census = census
        self._interval_s = interval_s
        self._first = {"host": socket.gethostname(), "pid": os.getpid(), "kind": kind, "version": version}
        self._task: asyncio.Task[None] | None = None
        self._beats = 0
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Heartbeat beats={self._beats} failures={self._failures}>"

    async def __aenter__(self) -> Self:
        await self._beat()
        self._task = asyncio.create_task(self._run(), name="turnout-heartbeat")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._beat(ProcessReport.Ending.STOPPED)

    def census(self) -> dict[str, int]:
        """Reports written and failed since the process started."""
        return {"beats_total": self._beats, "failures_total": self._failures}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._beat()

    async def _beat(self, ending: str = "") -> None:
        try:
            await self._database.call(
                ProcessReport.objects.all().report, self.process_id, self._first, self._census(), ending
            )
        except Exception:
            # Whatever it was, the next report is tried: a silent process loses its runs to recovery.
            self._failures += 1
            logger.exception("process %s could not report itself; trying again", self.process_id)
        else:
            self._beats += 1
