"""What a process does for the deployment beside serving: keep the log within its bounds, delete to the end,
and watch over its history.

One part, so that the composition root opens one thing; each job is a `Periodic`, which outlives a failing turn.
"""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from apps.chat.snapshot import needed_from
from apps.operations.deletion import DeletionKeeper
from apps.realtime.database import DatabaseThreads
from apps.realtime.epochs import Witness
from apps.realtime.periodic import Periodic
from apps.realtime.retention import RetentionKeeper, RetentionLimits


class Upkeep:
    """`async with`; leaving it ends the jobs. `send_tabs_back` is called when the database is older than it was."""

    def __init__(
        self,
        database: DatabaseThreads,
        retention: RetentionLimits,
        witness_file: Path | None,
        send_tabs_back: Callable[[], None],
    ) -> None:
        self._every_s = retention.every_s
        self._keeper = RetentionKeeper(database, retention, needed_from)
        self._deletions = DeletionKeeper(database, retention.every_s, retention.step_rows, retention.steps)
        self._witness = Witness(database, witness_file, send_tabs_back)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        jobs = {"retention": self._keeper.turn, "deletion": self._deletions.turn, "witness": self._witness.look}
        for name, turn in jobs.items():
            await self._stack.enter_async_context(Periodic(name, self._every_s, turn))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def history_is_intact(self) -> bool:
        """False from when the database was found older than it had been, until its epochs are renewed."""
        return not self._witness.went_back

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {**self._keeper.census(), "rows_of_deleted_users_total": self._deletions.removed}
