"""A task that does one thing every so often, owned by whoever entered it, and outlives a failure of that thing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)


class Periodic:
    """`async with Periodic("beat", 2.0, beat):` awaits `beat()` every 2 seconds until it is left.

    A failing turn is logged with its traceback and counted, and the next comes at its time.
    """

    def __init__(self, name: str, interval_s: float, turn: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self.interval_s = interval_s
        self._turn = turn
        self._task: asyncio.Task[None] | None = None
        self.failures = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=self.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.interval_s)
            try:
                await self._turn()
            except Exception:  # one failed look must not end all later ones
                self.failures += 1
                logger.exception("%s failed; again in %.1f s", self.name, self.interval_s)
