"""The sockets of all processes, as they report them: how they keep up, why they were closed, and what tabs proved.

Made of process reports alone, so it is as old as the oldest of them, and says how old that is. It knows no user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from apps.operations.models import ProcessReport

_HEALTH = ("healthy", "lagging", "stalled", "draining")
_CLOSED, _TOTAL = "pool.connections_closed_", "_total"


@dataclass(frozen=True, slots=True)
class PoolReport:
    """The sockets of one process, or of all. `closed` counts by reason since the process started."""

    name: str
    age_s: float
    connections: int
    users: int
    handshakes: int
    health: Mapping[str, int]
    opened: int
    refused: int
    closed: Mapping[str, int]
    proofs: Mapping[str, int]

    @classmethod
    def of(cls, name: str, age_s: float, counts: Mapping[str, int]) -> Self:
        """What these counts of a process say of its sockets."""

        def count(key: str) -> int:
            return int(counts.get(key, 0))

        return cls(
            name=name,
            age_s=age_s,
            connections=count("pool.connections"),
            users=count("pool.connected_users"),
            handshakes=count("pool.handshakes"),
            health={state: count(f"pool.connections_{state}") for state in _HEALTH},
            opened=count("pool.connections_opened_total"),
            refused=count("pool.connections_refused_total"),
            closed={
                key.removeprefix(_CLOSED).removesuffix(_TOTAL).replace("_", " "): int(number)
                for key, number in sorted(counts.items())
                if key.startswith(_CLOSED)
            },
            proofs={state: count(f"proofs.{state}_total") for state in ("verified", "broken", "unchecked", "dropped")},
        )


@dataclass(frozen=True, slots=True)
class Connections:
    """What the page of connections shows: the answer, the sum, and each process."""

    verdict: str
    is_fine: bool
    total: PoolReport
    processes: tuple[PoolReport, ...]


def read_connections(silent_s: float) -> Connections:
    """The sockets of the processes that reported within `silent_s` seconds. Synchronous."""
    rows = [
        (report, report.age.total_seconds())
        for report in ProcessReport.objects.running(silent_s).with_age().order_by("started_at")
        if "pool.connections" in report.counts
    ]
    summed: dict[str, int] = {}
    for report, _ in rows:
        for key, number in report.counts.items():
            summed[key] = summed.get(key, 0) + number
    total = PoolReport.of("all", max((age for _, age in rows), default=0.0), summed)
    verdict, is_fine = _verdict(total, len(rows))
    return Connections(
        verdict, is_fine, total, tuple(PoolReport.of(str(report), age, report.counts) for report, age in rows)
    )


def _verdict(total: PoolReport, processes: int) -> tuple[str, bool]:
    if not processes:
        return "No process that serves sockets has reported lately.", False
    if broken := total.proofs["broken"]:
        return (
            f"{broken} messages were assembled differently in a tab: look for 'holds another text' in the logs.",
            False,
        )
    stalled = total.health["stalled"]
    if stalled * 10 > total.connections:
        return f"{stalled} of {total.connections} tabs leave pings unanswered.", False
    return "All tabs keep up, but for those named below." if stalled or total.health[
        "lagging"
    ] else "All tabs keep up.", True
