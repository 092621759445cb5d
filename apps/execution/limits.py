"""The bounds of execution. Their values stand in the configuration, under the same names; here is what they
mean.
"""

from collections.abc import Callable
from dataclasses import dataclass

from apps.vocabulary import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What runs may hold, and how long they may take. Filled by the composition root."""

    # Queued runs of all users. Looked at, not locked: concurrent admissions can pass it by a few.
    queued_runs: int
    # Running runs of one user, over all processes; and running runs of one process.
    run_slots_per_user: int
    run_slots: int
    # Longest run, from its claim.
    run_timeout_s: float
    # Calls of its model that one run may make.
    model_calls: int
    # A call that waits for its user's word; then it expires.
    approval_timeout_s: float
    # An agent that was cancelled has this long to stop; then it is abandoned.
    cancel_timeout_s: float
    # One clean-up callback.
    cleanup_timeout_s: float
    # The newest finished messages that an agent is given, and the UTF-8 bytes of their text.
    history_messages: int
    history_bytes: int
    # Between two looks for runs whose wake-up was lost.
    sweep_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """What one user may hold and use. The configuration has the default; `TURNOUT_PLAN` may give others by user."""

    # Queued, running and waiting runs together, and those that wait for an approval.
    open_runs_per_user: int
    waiting_runs_per_user: int
    # Input and output tokens of all runs that end in one day (UTC), open ones counted as what they may use at most.
    tokens_per_day: int
    threads_per_user: int
    messages_per_thread: int
    # UTF-8 bytes of all stored messages. Looked at before a run; one answer may pass it by what a run may log.
    stored_bytes_per_user: int


Plans = Callable[[Identity], PlanLimits]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLimits:
    """How fast a process that is gone is noticed, and how patiently one that only hangs is waited for."""

    # Between two beats of a lease, which are also two looks at those of others.
    renew_s: float
    # A beat that stands still for this long, while the process' lock is free: the process is dead.
    dead_s: float
    # A lease that was not renewed for this long: the owner's runs go no further, until it is.
    hold_s: float
    # A beat that stands still for this long: the lease is taken away, dead or not.
    ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """Wake-ups between machines."""

    # Between two beats of a listener, and after how long without one its jobs are deleted.
    heartbeat_s: float
    stalled_s: float
    # Between two looks for jobs whose notification was lost.
    poll_s: float
    # Between two looks for stalled jobs.
    sweep_s: float
    # For a job at work when the process stops.
    stop_s: float
