"""How many runs of all users wait, and for how long: asked once a report, told by every process alike."""

from collections.abc import Mapping

from django.db.models import Count, Min
from django.utils import timezone

from apps.execution.models import Run
from apps.execution.states import OPEN
from apps.realtime.database import DatabaseThreads


class Backlog:
    """The counts of the last look. `turn` belongs into a `Periodic`."""

    def __init__(self, database: DatabaseThreads) -> None:
        self._database = database
        self._counts: Mapping[str, int] = {f"runs_{status.value}": 0 for status in sorted(OPEN)} | {
            "oldest_queued_ms": 0
        }

    async def turn(self) -> None:
        """Look anew."""
        self._counts = await self._database.call(read_backlog)

    def census(self) -> Mapping[str, int]:
        """Counts for the process report and the metrics, of all processes together."""
        return self._counts


def read_backlog() -> dict[str, int]:
    """Open runs of all users by status, and for how long the oldest of those that are queued waits. Synchronous."""
    rows = Run.objects.open().order_by().values_list("status").annotate(Count("pk"), Min("admitted_at"))
    found = {status: (number, oldest) for status, number, oldest in rows}
    counts = {f"runs_{status.value}": found[status.value][0] if status.value in found else 0 for status in sorted(OPEN)}
    oldest = found["queued"][1] if "queued" in found else None
    waited_s = 0.0 if oldest is None else (timezone.now() - oldest).total_seconds()
    return {**counts, "oldest_queued_ms": max(0, round(1_000 * waited_s))}
