"""How long runs waited, how long they took, and how they ended, in this process. Not whose they were."""

from collections import Counter
from collections.abc import Mapping

from prometheus_client import Histogram

from apps.execution.models import Run
from apps.execution.states import ENDED, RunStatus

OUTCOMES = sorted(ENDED | {RunStatus.WAITING})
WAIT_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0)
RUN_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0)


class RunTimings:
    """Histograms that belong to no registry, so that two processes in one interpreter keep apart."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self.claim_wait_seconds = Histogram(
            "turnout_executor_claim_wait_seconds",
            "From the admission of a run until it was claimed",
            buckets=WAIT_SECONDS,
            registry=None,
        )
        self.run_seconds = Histogram(
            "turnout_executor_run_seconds",
            "From the claim of a run until its end was stored",
            buckets=RUN_SECONDS,
            registry=None,
        )

    def claimed(self, run: Run) -> None:
        """A run was claimed."""
        if run.started_at is not None:
            waited = run.started_at - run.admitted_at
            self.claim_wait_seconds.observe(max(0.0, waited.total_seconds()))  # the two clocks may be of two hosts

    def ended(self, status: str, took_s: float) -> None:
        """A run ended with this status, so many seconds after it was claimed."""
        self._ended[status] += 1
        self.run_seconds.observe(took_s)

    def census(self) -> Mapping[str, int]:
        """Ended runs by outcome."""
        return {f"ended_{outcome.value}_total": self._ended[outcome.value] for outcome in OUTCOMES}
