"""The deployment at a glance: what is wrong, how full each bound is, and what each process does.

Made of the reports of processes, so it is as old as the oldest of them and says so. It knows no user. Pure, but for
`read_live`, which asks the database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.operations.models import ProcessReport

WIDTH: Final = 320
HEIGHT: Final = 14
_FULL, _NEARLY_FULL = 0.95, 0.75
_LATE_QUEUE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What processes are held to, from the configuration."""

    connections: int
    run_slots: int
    queued_runs: int
    database_threads: int
    users_with_news: int
    proofs: int


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as it reports itself."""

    process_id: str
    name: str
    kind: str
    version: str
    age_s: float
    is_silent: bool
    counts: Mapping[str, int]

    def count(self, name: str) -> int:
        """One count of its census; 0 where it has none."""
        return int(self.counts.get(name, 0))

    @property
    def runs(self) -> int:
        """Runs under way."""
        return self.count("executor.running")

    @property
    def connections(self) -> int:
        """Open sockets."""
        return self.count("pool.connections")

    @property
    def behind(self) -> int:
        """Tabs that lag or are stalled."""
        return self.count("pool.connections_lagging") + self.count("pool.connections_stalled")

    @property
    def stalls(self) -> str:
        """How often its loop stood still, and for how long at worst."""
        number = self.count("loop.stalls_total")
        return f"{number}, the longest {self.count('loop.longest_stall_ms') / 1000:.1f} s" if number else "none"

    @property
    def hears(self) -> str:
        """Whether it hears other processes."""
        return f"{self.count('hints.peers')} others" if self.count("hints.connected") else "nobody"


@dataclass(frozen=True, slots=True)
class Gauge:
    """How full one bound is, in the process in which it is fullest."""

    name: str
    used: int
    bound: int
    where: str

    @property
    def share(self) -> float:
        """From 0 to 1; more where a bound was made smaller."""
        return self.used / self.bound

    @property
    def says(self) -> str:
        """In words, for those who do not see the picture."""
        return f"{self.used} of {self.bound}, {100 * self.share:.0f} %"

    @property
    def picture(self) -> SafeString:
        """A bar, drawn on the server; its colours come from the page's style sheet."""
        style = "full" if self.share >= _FULL else "nearly" if self.share >= _NEARLY_FULL else "fine"
        filled = round(min(self.share, 1.0) * WIDTH, 1)
        return format_html(
            '<svg class="bar" viewBox="0 0 {} {}" role="img" aria-label="{}: {}">'
            '<rect class="room" width="{}" height="{}" rx="3"/><rect class="{}" width="{}" height="{}" rx="3"/></svg>',
            *(WIDTH, HEIGHT, self.name, self.says, WIDTH, HEIGHT, style, filled, HEIGHT),
        )


@dataclass(frozen=True, slots=True)
class Live:
    """What the page shows: what is wrong, the numbers, the pictures, the processes."""

    findings: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    gauges: tuple[Gauge, ...]
    processes: tuple[Process, ...]
    oldest_s: float

    @property
    def verdict(self) -> str:
        """The answer, in one sentence."""
        if not self.findings:
            return "All is well."
        return "One thing needs you." if len(self.findings) == 1 else f"{len(self.findings)} things need you."


def read_live(bounds: Bounds, silent_s: float) -> Live:
    """All processes that have not ended by their own word. Synchronous."""
    rows = ProcessReport.objects.filter(ending="").with_age().order_by("kind", "started_at")
    return live_of(
        [
            Process(
                process_id=row.pk,
                name=str(row),
                kind=row.kind,
                version=row.version,
                age_s=row.age.total_seconds(),
                is_silent=row.age.total_seconds() > silent_s,
                counts=row.counts,
            )
            for row in rows
        ],
        bounds,
    )


def live_of(processes: Sequence[Process], bounds: Bounds) -> Live:
    """The page of these processes."""
    living = [process for process in processes if not process.is_silent]
    backlog = min(living, key=lambda process: process.age_s, default=None)
    return Live(
        findings=tuple(_findings(processes, living, backlog)),
        figures=_figures(living, backlog),
        gauges=_gauges(living, bounds, backlog),
        processes=tuple(processes),
        oldest_s=max((process.age_s for process in living), default=0.0),
    )


def _sum(processes: Sequence[Process], name: str) -> int:
    return sum(process.count(name) for process in processes)


def _findings(processes: Sequence[Process], living: Sequence[Process], backlog: Process | None) -> list[str]:
    found = [
        f"{process.name} is silent for {process.age_s:.0f} s: its runs are ended by others; see audit_cleanup."
        for process in processes
        if process.is_silent
    ]
    if backlog is None:
        return [*found, "No process reports itself: start one with manage.py serve."]
    if (waits_ms := backlog.count("backlog.oldest_queued_ms")) > _LATE_QUEUE_MS:
        found.append(f"A run is queued for {waits_ms / 1000:.0f} s: the slots are full, or nobody executes runs.")
    if broken := _sum(living, "proofs.broken_total"):
        found.append(f"{broken} messages were assembled differently in a tab: look for them in the log.")
    found += [
        f"{process.name} does not hear the channel layer: its tabs learn of others' events from the poll."
        for process in living
        if "hints.connected" in process.counts and not process.count("hints.connected")
    ]
    if held := _sum(living, "log.users_held"):
        found.append(f"{held} users' rows are held by another transaction: their events wait.")
    if left := _sum(living, "executor.left_behind"):
        found.append(f"{left} agents did not stop when told, and hold their slots: the log names them.")
    versions = {process.version for process in living}
    if len(versions) > 1:
        found.append(f"Versions {' and '.join(sorted(versions))} run side by side: finish the deploy.")
    return found


def _figures(living: Sequence[Process], backlog: Process | None) -> tuple[tuple[str, str], ...]:
    def of_all(status: str) -> str:
        return str(0 if backlog is None else backlog.count(f"backlog.runs_{status}"))

    reports = (
        ("tabs that lag or are stalled", str(sum(process.behind for process in living))),
        ("messages that tabs proved", str(_sum(living, "proofs.verified_total"))),
        ("of them broken", str(_sum(living, "proofs.broken_total"))),
        ("commits tried again", str(_sum(living, "log.commit_retries_total"))),
        ("late writes refused", str(_sum(living, "executor.fenced_total"))),
    )
    return (
        ("processes", str(len(living))),
        ("connections", str(_sum(living, "pool.connections"))),
        ("running runs", of_all("running")),
        ("queued runs", of_all("queued")),
        ("waiting for approval", of_all("waiting")),
        *reports,
    )


def _gauges(living: Sequence[Process], bounds: Bounds, backlog: Process | None) -> tuple[Gauge, ...]:
    wanted = (
        ("Connections", "pool.connections", bounds.connections),
        ("Run slots", "executor.running", bounds.run_slots),
        ("Database threads", "database.calls", bounds.database_threads),
        ("Users with news", "hints.users_with_news", bounds.users_with_news),
        ("Proofs that wait", "proofs.waiting", bounds.proofs),
    )
    fullest = [
        Gauge(name, process.count(count), bound, process.name)
        for name, count, bound in wanted
        for process in [max(living, key=lambda each: each.count(count), default=None)]
        if process is not None
    ]
    if backlog is None:
        return ()
    return (*fullest, Gauge("Queued runs", backlog.count("backlog.runs_queued"), bounds.queued_runs, "all processes"))
