"""One group commit: the batches of many runs, for all users of a process, in one transaction. Synchronous.

One conditional update a run is everything at once: `UPDATE ledger SET logged = logged + n WHERE run, user, fence =
mine, logged = my base, open`. No row means: look again. `logged` already at base + n under my fence says that my
commit won and only its answer was lost; anything else says that somebody else owns the run now. That is why a batch
is frozen once it was handed over, and retried byte for byte.

A batch that the database refuses is searched by halving, so that it fails its own run only.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from django.db import InterfaceError, OperationalError, connection, transaction

from apps.realtime.appending import Appended, append_rows
from apps.realtime.models import RunLedger
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import EndedRun, Ending, Page, RunLease
from apps.vocabulary import RunId, UserId

logger = logging.getLogger(__name__)

_COMPARE_AND_SWAP = """
    UPDATE realtime_runledger SET logged = logged + %s, is_open = %s
    WHERE run_id = %s AND user_id = %s AND fence = %s AND logged = %s AND is_open
    RETURNING cancel_requested
"""


@dataclass(frozen=True, slots=True)
class FrozenEvent:
    """A checked, redacted, serialised event. `recipients` is None for the owner alone, as on all paths but legacy's."""

    entry: str
    size: int
    recipients: frozenset[UserId] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The next events of one run, never changed after it was handed to a commit."""

    lease: RunLease
    base: int
    events: tuple[FrozenEvent, ...]
    ending: Ending | None = None
    prepared: object | None = field(default=None, compare=False)

    @property
    def ended_run(self) -> EndedRun | None:
        """The run as `settle` and `fold` see it, when this batch holds its terminal event."""
        if self.ending is None:
            return None
        lease, ending = self.lease, self.ending
        return EndedRun(
            lease.run_id,
            lease.thread_id,
            lease.user_id,
            lease.fence,
            ending.status,
            ending.usage,
            ending.error_code,
            self.prepared,
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """The batch is in the log, exactly once."""

    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Fenced:
    """Somebody else owns the run, or it has ended: nothing was written and nothing may be."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The database cannot take this batch; the run must end in another way."""

    error: Exception


Outcome = Committed | Fenced | Refused


@dataclass(slots=True)
class CommitResult:
    """What became of each run's batch, and the pages to show now that they are stored."""

    outcomes: dict[RunId, Outcome] = field(default_factory=dict)
    pages: list[Page] = field(default_factory=list)

    def include(self, other: "CommitResult") -> None:
        """Add what another part of a halved commit brought."""
        self.outcomes |= other.outcomes
        self.pages += other.pages


class Participant(Protocol):
    """Somebody who writes in the transaction of a run's terminal event."""

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """Lock own rows before the ledger is touched, in the lock order."""
        ...

    def write(self, ended: Sequence[EndedRun]) -> None:
        """Change own rows. Whatever it raises fails the run that caused it, alone."""
        ...


class _LostTerminal(Exception):  # noqa: N818 - not an error: the reason to roll back and go on without
    """A terminal batch lost its compare-and-swap after its participants had written."""

    def __init__(self, run_id: RunId, outcome: Outcome) -> None:
        super().__init__(run_id)
        self.run_id = run_id
        self.outcome = outcome


class Committer:
    """Commits batches. `settle` writes the run and the budget, `fold` the message; `may_receive_leaks` filters the
    users whom the old bridge may write to (nobody, where the legacy room is gone).
    """

    def __init__(
        self,
        *,
        settle: Participant,
        fold: Participant,
        limits: SegmentLimits,
        may_receive_leaks: Callable[[frozenset[UserId]], frozenset[UserId]],
    ) -> None:
        self._settle = settle
        self._fold = fold
        self._limits = limits
        self._may_receive_leaks = may_receive_leaks

    def commit(self, batches: Sequence[Batch]) -> CommitResult:
        """Write all batches, each wholly or not at all. Raises OperationalError when the database cannot be reached:
        then nothing is known, and the same batches must be handed over again.
        """
        try:
            with transaction.atomic():
                return self._write(batches)
        except _LostTerminal as lost:
            result = CommitResult({lost.run_id: lost.outcome})
            rest = [batch for batch in batches if batch.lease.run_id != lost.run_id]
            if rest:
                result.include(self.commit(rest))
            return result
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            # The database refused a value, or a participant has a defect: whatever it is, it may end the run that
            # brought it, and must not end the writer that all runs of the process depend on.
            if len(batches) == 1:
                logger.exception("the batch of run %s cannot be committed", batches[0].lease.run_id)
                return CommitResult({batches[0].lease.run_id: Refused(error)})
            half = len(batches) // 2
            result = self.commit(batches[:half])
            result.include(self.commit(batches[half:]))
            return result

    def _write(self, batches: Sequence[Batch]) -> CommitResult:
        batches = sorted(batches, key=lambda batch: (batch.lease.user_id, batch.lease.run_id))
        ended = [run for batch in batches if (run := batch.ended_run) is not None]
        if ended:
            self._settle.lock(ended)
            self._fold.lock(ended)
            self._settle.write(ended)
        result = CommitResult()
        won: list[Batch] = []
        with connection.cursor() as cursor:
            for batch in batches:
                lease = batch.lease
                cursor.execute(
                    _COMPARE_AND_SWAP,
                    (
                        len(batch.events),
                        batch.ending is None,
                        lease.run_id,
                        lease.user_id,
                        lease.fence,
                        batch.base,
                    ),
                )
                row = cursor.fetchone()
                if row is not None:
                    result.outcomes[lease.run_id] = Committed(cancel_requested=bool(row[0]))
                    won.append(batch)
                else:
                    self._lost(batch, result)
        result.pages = append_rows(self._rows(won), self._limits)
        if ended:
            self._fold.write(ended)
        return result

    def _lost(self, batch: Batch, result: CommitResult) -> None:
        lease = batch.lease
        ledger = RunLedger.objects.filter(run_id=lease.run_id, user_id=lease.user_id).first()
        outcome: Outcome = Fenced()
        if (
            ledger is not None
            and ledger.fence == lease.fence
            and ledger.logged == batch.base + len(batch.events)
            and ledger.is_open == (batch.ending is None)
        ):
            outcome = Committed(ledger.cancel_requested)
        if batch.ending is not None:
            raise _LostTerminal(lease.run_id, outcome)
        result.outcomes[lease.run_id] = outcome

    def _rows(self, batches: Sequence[Batch]) -> list[Appended]:
        rows: list[Appended] = []
        own: dict[UserId, list[str]] = {}
        for batch in batches:
            owner = batch.lease.user_id
            mine = own.setdefault(owner, [])
            for event in batch.events:
                if event.recipients is None or event.recipients == {owner}:
                    mine.append(event.entry)
                else:
                    self._leak(event, owner, mine, rows)
        return [Appended(owner, entries) for owner, entries in own.items() if entries] + rows

    def _leak(self, event: FrozenEvent, owner: UserId, mine: list[str], rows: list[Appended]) -> None:
        assert event.recipients is not None
        if owner in event.recipients:
            mine.append(event.entry)
        strangers = sorted(self._may_receive_leaks(event.recipients - {owner}))
        rows.extend(Appended(stranger, [event.entry], leaked_from=owner) for stranger in strangers)
