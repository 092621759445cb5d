"""Telling somebody else how a run ended, in the transaction that ends it: the run's row and what it came to.

Execution knows nothing of rollouts; the composition root gives it who is told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from apps.execution.models import Run
from apps.execution.states import RunStatus
from apps.realtime.commit import Participant
from apps.realtime.values import EndedRun
from apps.vocabulary import PinnedPaths, RunId, UserId

FAILED = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run that was claimed ended.

    `own_s` are the seconds from its claim to its end without those that it waited for its model and its
    tools; None where the process that ran it could not say.
    """

    user_id: UserId
    run_id: RunId
    agent: str
    paths: PinnedPaths
    status: RunStatus
    started_at: datetime
    own_s: float | None

    @property
    def failed(self) -> bool:
        """Whether it ended without an answer, and not because its user wanted that."""
        return self.status in FAILED


class EndsObserved:
    """A participant of the log's commits that passes on to another one, then tells `observe` what has ended.

    It comes last of all in the transaction, when everything is written and the run's end can no longer be
    refused; a lock that `observe` takes is the last in the lock order.
    """

    def __init__(self, participant: Participant, observe: Callable[[Sequence[RunEnd]], None]) -> None:
        self._participant = participant
        self._observe = observe

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """Whatever the other participant locks; nothing else."""
        self._participant.lock(ended)

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        """Whatever the other participant answers."""
        return self._participant.lock_free(ended)

    def write(self, ended: Sequence[EndedRun]) -> None:
        """Let the other participant write, then tell of each run that was claimed. Raises what either raises."""
        self._participant.write(ended)
        if ends := [end for run in ended if (end := _end_of(run)) is not None]:
            self._observe(ends)


def _end_of(ended: EndedRun) -> RunEnd | None:
    run = Run.objects.owned(ended.user_id).filter(pk=ended.run_id).first()
    if run is None or run.started_at is None:
        return None
    status = RunStatus(ended.status)
    own_s = None
    if status is RunStatus.SUCCEEDED and run.ended_at is not None:
        own_s = (run.ended_at - run.started_at).total_seconds() - ended.usage.get("waited_ms", 0) / 1_000
    return RunEnd(ended.user_id, ended.run_id, run.agent, run.pinned_paths, status, run.started_at, own_s)
