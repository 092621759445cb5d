"""Every metric by name: which counts of the census it shows, in which unit, under which labels, and what it means.

docs/reference/metrics.md is this table; tests hold the page to it, and it to the census of a live process.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `{label}` in `source` stands for a label's value; all else in it is literal."""

    source: str
    name: str
    unit: str
    meaning: str

    @property
    def is_counter(self) -> bool:
        """Whether it only rises while the process lives."""
        return self.source.endswith("_total")

    @property
    def labels(self) -> list[str]:
        """The names of its labels."""
        return re.findall(r"\{(\w+)\}", self.source)

    def labels_of(self, source: str) -> dict[str, str] | None:
        """The labels of this count of the census; None when it is none of this metric's."""
        if "{" not in self.source:
            return {} if source == self.source else None
        literal = re.escape(self.source).replace(r"\{", "{").replace(r"\}", "}")
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[a-z_]+?)", literal), source)
        return None if found is None else found.groupdict()


def _plain(source: str, unit: str, meaning: str) -> Family:
    return Family(source, "turnout_" + source.replace(".", "_"), unit, meaning)


_RUNS = (
    _plain("executor.running", "runs", "runs under way in this process"),
    _plain("executor.slots", "runs", "runs that may be under way in this process"),
    _plain("executor.left_behind", "tasks", "agents and clean-ups that did not stop when they were told"),
    _plain("executor.claimed_total", "runs", "runs claimed"),
    _plain("executor.abandoned_total", "tasks", "agents and clean-ups that were left behind"),
    _plain("executor.cleanup_failures_total", "callbacks", "clean-ups that failed or took too long"),
    _plain("executor.fenced_total", "runs", "runs whose late writes were refused: another process had ended them"),
    Family("executor.ended_{outcome}_total", "turnout_executor_ended_total", "runs", "runs ended here, by outcome"),
    _plain("engines.live", "engines", "engines that are open"),
    _plain("engines.opened_total", "engines", "engines opened"),
    _plain("backlog.runs_queued", "runs", "queued runs of all users, in all processes"),
    _plain("backlog.runs_running", "runs", "running runs of all users, in all processes"),
    _plain("backlog.runs_waiting", "runs", "runs of all users that wait for an approval"),
    _plain("backlog.oldest_queued_ms", "milliseconds", "how long the oldest queued run waits"),
    _plain("lease.other_processes", "processes", "other processes whose leases this one watches"),
    _plain("lease.beats_total", "beats", "renewals of this process' lease"),
    _plain("lease.skipped_beats_total", "beats", "renewals left out, since the event loop stood still"),
    _plain("lease.losses_total", "leases", "times that this process had lost its lease"),
    _plain("recovery.waiting", "processes", "dead processes whose runs are still to be ended"),
    _plain("recovery.processes_total", "processes", "dead processes whose runs were ended here"),
    _plain("recovery.recovered_total", "runs", "runs of dead processes that were ended here"),
    _plain("jobs.jobs_total", "jobs", "wake-ups taken, where workers execute runs"),
    _plain("jobs.listener_restarts_total", "restarts", "times that the listener for wake-ups began anew"),
    _plain("loop.stalls_total", "stalls", "times that the event loop stood still for too long"),
    _plain("loop.longest_stall_ms", "milliseconds", "the longest of these"),
)

_SOCKETS = (
    _plain("pool.connections", "connections", "open sockets"),
    _plain("pool.connected_users", "users", "users with an open socket"),
    _plain("pool.handshakes", "connections", "sockets whose handshake is under way"),
    _plain("pool.addresses", "addresses", "addresses that hold sockets"),
    _plain("pool.connections_opened_total", "connections", "sockets opened"),
    _plain("pool.connections_refused_total", "connections", "sockets refused at the door"),
    Family(
        "pool.connections_closed_{reason}_total",
        "turnout_pool_connections_closed_total",
        "connections",
        "sockets that the server closed, by close code",
    ),
    Family("pool.connections_{health}", "turnout_pool_connections_by_health", "connections", "open sockets, by health"),
    _plain("reader.requests_waiting", "requests", "reads of the log that wait"),
    _plain("reader.reads_total", "queries", "reads of the log, each for all who wait"),
    _plain("proofs.waiting", "proofs", "proofs of tabs that wait to be compared"),
    _plain("proofs.verified_total", "proofs", "messages that a tab assembled as they are stored"),
    _plain("proofs.broken_total", "proofs", "messages that a tab assembled differently; always 0, or look"),
    _plain("proofs.unchecked_total", "proofs", "proofs of messages that are gone or unfinished"),
    _plain("proofs.dropped_total", "proofs", "proofs beyond the bound on those that wait"),
)

_LOG = (
    _plain("log.runs_waiting", "runs", "runs with events to be committed"),
    _plain("log.users_held", "users", "users whose rows somebody else holds"),
    _plain("log.commits_total", "commits", "commits of events"),
    _plain("log.commit_retries_total", "commits", "commits that failed and were tried again"),
    _plain("log.batches_passed_over_total", "batches", "batches that a commit passed over, since their rows were held"),
    _plain("hints.connected", "switch", "1 while this process hears itself on the channel layer"),
    _plain("hints.peers", "processes", "other processes heard on the channel layer"),
    _plain("hints.users_with_news", "users", "users with events that others were not told of yet"),
    _plain("hints.sessions_total", "sessions", "times that the channel layer was joined"),
    _plain("hints.sent_total", "hints", "hints sent"),
    _plain("hints.heard_total", "hints", "hints heard"),
    _plain("hints.forgotten_total", "users", "users left to the poll of heads, beyond the bound"),
    _plain("hints.malformed_total", "messages", "messages on the channel layer that are no hints"),
    _plain("upkeep.turns_total", "turns", "turns of retention"),
    _plain("upkeep.rows_trimmed_total", "rows", "rows of the log that were trimmed"),
    _plain("upkeep.rows_of_deleted_users_total", "rows", "rows of deleted users that were removed"),
)

_REST = (
    _plain("switch.replaying", "replays", "runs that are replayed on the other path now"),
    _plain("switch.recorded_total", "runs", "runs of legacy that were recorded"),
    _plain("switch.replayed_total", "replays", "replays that were compared"),
    _plain("switch.timed_out_total", "replays", "replays that took too long"),
    _plain("switch.shed_total", "runs", "runs not recorded, since users needed the process"),
    _plain("switch.failed_total", "replays", "replays that could not be made"),
    Family("switch.uses_{seam}.{path}", "turnout_switch_uses", "uses", "open uses of a seam, by path"),
    Family("switch.calls_{seam}.{path}_total", "turnout_switch_calls_total", "calls", "calls of a seam, by path"),
    _plain("database.threads", "threads", "database threads started"),
    _plain("database.calls", "calls", "calls that wait for a database thread, or are in one"),
)

# A plain name is found before a pattern that it would fit.
FAMILIES = tuple(sorted((*_RUNS, *_SOCKETS, *_LOG, *_REST), key=lambda family: "{" in family.source))
