"""One group commit: the batches of many runs, for all users of a process, in one transaction. Synchronous.

Locks are taken in the order of the whole system (budget, thread, run, ledger, stream), users by ascending id, and only
those that nobody else holds: all users wait for this commit, so it waits for none of them. A batch whose rows are held
is passed over, and handed over again by itself.

One comparison a run is everything at once: is this run, of this user, open, under my fence, and has it logged what I
think it has? Then `logged` moves by as much as the batch holds. If not: `logged` already at base + n under my fence
says that my commit won and only its answer was lost; anything else says that somebody else owns the run now. That is
why a batch is frozen once it was handed over, and retried byte for byte.

A batch that the database refuses is searched by halving, so that it fails its own run only.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from django.db import connection, transaction

from apps.realtime.appending import Appended, append_to_heads, encode_own, lock_free_heads, lock_heads
from apps.realtime.locking import Locking, held_of
from apps.realtime.models import RunLedger
from apps.realtime.outages import Trouble, trouble_of
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import EndedRun, Ending, Page, RunLease, Told
from apps.vocabulary import Position, RunId, UserId

logger = logging.getLogger(__name__)

_SWAP = """
    UPDATE realtime_runledger SET logged = logged + %s, is_open = %s
    WHERE run_id = %s AND user_id = %s AND fence = %s AND logged = %s AND is_open
"""
_TRIES = 3  # of one batch that collides with somebody, before it fails its run


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
            ending.error_message,
            ending.waits_for,
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
    """What became of each run's batch, and the pages to show now that they are stored.

    `held` are the runs whose rows somebody else holds: nothing of theirs was written, and nothing is known against it.
    """

    outcomes: dict[RunId, Outcome] = field(default_factory=dict)
    pages: list[Page] = field(default_factory=list)
    held: set[RunId] = field(default_factory=set)

    def include(self, other: "CommitResult") -> None:
        """Add what another part of a halved commit brought."""
        self.outcomes |= other.outcomes
        self.pages += other.pages
        self.held |= other.held


class Participant(Protocol):
    """Somebody who writes in the transaction of a run's terminal event."""

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """Lock own rows before the ledger is touched, in the lock order, and wait for those that are held."""
        ...

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        """As `lock`, but wait for nobody: returns the runs whose rows somebody else holds."""
        ...

    def write(self, ended: Sequence[EndedRun]) -> None:
        """Change own rows. Whatever it raises fails the run that caused it, alone."""
        ...


class Books(Protocol):
    """A participant that keeps the books of ended runs, and has something to tell their users."""

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """As a participant does."""
        ...

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        """As a participant does."""
        ...

    def write(self, ended: Sequence[EndedRun]) -> Sequence[Told]:
        """Change own rows; what comes back is logged behind the terminal events. Raises as a participant does."""
        ...


class _TakenBack(Exception):  # noqa: N818 - not an error: the reason to roll back and go on without
    """Terminal batches cannot be written after all, and their participants have written already."""

    def __init__(self, outcomes: Mapping[RunId, Outcome], held: Collection[RunId]) -> None:
        super().__init__(*outcomes, *held)
        self.result = CommitResult(dict(outcomes), held=set(held))


class Committer:
    """Commits batches. `settle` writes the run and the budget, `fold` the message; `may_receive_leaks` filters the
    users whom the old bridge may write to (nobody, where the legacy room is gone).
    """

    def __init__(
        self,
        *,
        settle: Books,
        fold: Participant,
        limits: SegmentLimits,
        may_receive_leaks: Callable[[frozenset[UserId]], frozenset[UserId]],
    ) -> None:
        self._settle = settle
        self._fold = fold
        self._limits = limits
        self._may_receive_leaks = may_receive_leaks

    def commit(self, batches: Sequence[Batch]) -> CommitResult:
        """Write all batches whose rows are free, each wholly or not at all; waits for nobody.

        Raises a django.db.Error when the database cannot be reached: then nothing is known, and the same batches must
        be handed over again.
        """
        return self._commit(batches, Locking.SKIP)

    def commit_alone(self, batches: Sequence[Batch], patience_s: float) -> CommitResult:
        """Write one user's batches that were held, waiting up to `patience_s` for each row. Raises as `commit` does."""
        return self._commit(batches, Locking.WAIT, patience_s)

    def _commit(
        self, batches: Sequence[Batch], locking: Locking, patience_s: float = 0.0, tries: int = _TRIES
    ) -> CommitResult:
        try:
            with transaction.atomic():
                if locking is Locking.WAIT:
                    _bound_waiting(patience_s)
                return self._write(batches, locking)
        except _TakenBack as taken:
            result = taken.result
            rest = [batch for batch in batches if batch.lease.run_id not in result.outcomes.keys() | result.held]
            if rest:
                result.include(self._commit(rest, locking, patience_s))
            return result
        except Exception as error:
            # Whatever it is, it may end the run that brought it, and must not end the writer that all runs depend on.
            trouble = trouble_of(error)
            if trouble is Trouble.OUTAGE:
                raise
            if len(batches) > 1:
                half = len(batches) // 2
                result = self._commit(batches[:half], locking, patience_s)
                result.include(self._commit(batches[half:], locking, patience_s))
                return result
            run_id = batches[0].lease.run_id
            if trouble is Trouble.HELD:
                return CommitResult(held={run_id})
            if trouble is Trouble.COLLISION and tries > 1:
                return self._commit(batches, locking, patience_s, tries - 1)
            logger.exception("the batch of run %s cannot be committed", run_id, extra={"run_id": run_id})
            return CommitResult({run_id: Refused(error)})

    def _write(self, batches: Sequence[Batch], locking: Locking) -> CommitResult:
        result = CommitResult()
        ready = sorted(batches, key=lambda batch: (batch.lease.user_id, batch.lease.run_id))
        told: Sequence[Told] = ()
        if _ended(ready):
            ready = self._lock_participants(ready, locking, result)
            told = self._settle.write(_ended(ready))
        won = self._compare(ready, locking, result)
        rows = {batch.lease.run_id: self._rows(batch) for batch in won}
        won, heads = _lock_streams(won, rows, locking, result)
        _take_back_terminals(ready, won, result)
        _swap(won)
        said = [part for batch in won for part in rows[batch.lease.run_id]]
        said += [Appended(line.user_id, [encode_own(line.entry)]) for line in told]
        result.pages = append_to_heads(_joined(said), heads, self._limits)
        if ended := _ended(won):
            self._fold.write(ended)
        return result

    def _lock_participants(self, ready: Sequence[Batch], locking: Locking, result: CommitResult) -> list[Batch]:
        for participant in (self._settle, self._fold):
            ended = _ended(ready)
            if locking is Locking.WAIT:
                participant.lock(ended)
            else:
                ready = _without(ready, participant.lock_free(ended), result)
        return list(ready)

    def _compare(self, ready: Sequence[Batch], locking: Locking, result: CommitResult) -> list[Batch]:
        """Lock the ledgers; returns the batches that continue theirs, and notes what became of the others."""
        locked = RunLedger.objects.select_for_update(no_key=True, skip_locked=locking.skips())
        run_ids = [batch.lease.run_id for batch in ready]
        rows = locked.filter(run_id__in=run_ids).order_by("user_id", "run_id")
        ledgers = {row[0]: _Ledger(*row[1:]) for row in rows.values_list("run_id", *_Ledger._fields)}
        held = held_of(RunLedger.objects.all(), set(run_ids) - ledgers.keys())
        won = []
        for batch in _without(ready, held, result):
            ledger = ledgers.get(batch.lease.run_id)
            if ledger is not None and ledger.continued_by(batch):
                won.append(batch)
                result.outcomes[batch.lease.run_id] = Committed(ledger.cancel_requested)
            elif ledger is not None and ledger.has_taken(batch):
                result.outcomes[batch.lease.run_id] = Committed(ledger.cancel_requested)
            else:
                result.outcomes[batch.lease.run_id] = Fenced()
        return won

    def _rows(self, batch: Batch) -> list[Appended]:
        owner = batch.lease.user_id
        mine: list[str] = []
        rows = [Appended(owner, mine)]
        for event in batch.events:
            if event.recipients is None or owner in event.recipients:
                mine.append(event.entry)
            if event.recipients is not None and (strangers := event.recipients - {owner}):
                rows.extend(
                    Appended(stranger, [event.entry], leaked_from=owner)
                    for stranger in sorted(self._may_receive_leaks(strangers))
                )
        return [part for part in rows if part.entries]


class _Ledger(NamedTuple):
    """A ledger's row, locked."""

    user_id: int
    fence: int
    logged: int
    is_open: bool
    cancel_requested: bool

    def _is_of(self, batch: Batch) -> bool:
        return self.user_id == batch.lease.user_id and self.fence == batch.lease.fence

    def continued_by(self, batch: Batch) -> bool:
        """The batch is the next part of this run."""
        return self._is_of(batch) and self.is_open and self.logged == batch.base

    def has_taken(self, batch: Batch) -> bool:
        """The batch is in already: its commit won, and only the answer was lost."""
        taken = self.logged == batch.base + len(batch.events) and self.is_open == (batch.ending is None)
        return self._is_of(batch) and taken


def _ended(batches: Sequence[Batch]) -> list[EndedRun]:
    return [run for batch in batches if (run := batch.ended_run) is not None]


def _without(batches: Sequence[Batch], held: frozenset[RunId], result: CommitResult) -> list[Batch]:
    result.held |= held
    return [batch for batch in batches if batch.lease.run_id not in held]


def _lock_streams(
    won: Sequence[Batch], rows: Mapping[RunId, Sequence[Appended]], locking: Locking, result: CommitResult
) -> tuple[list[Batch], Mapping[UserId, Position]]:
    """Lock the streams that these batches write to; returns the batches that have all of theirs."""
    users = {part.user_id for parts in rows.values() for part in parts}
    if not users:
        return list(won), {}
    if locking is Locking.WAIT:
        return list(won), lock_heads(users)
    heads, held_users = lock_free_heads(sorted(users))
    if not held_users:
        return list(won), heads
    held = frozenset(run_id for run_id, parts in rows.items() if any(part.user_id in held_users for part in parts))
    for run_id in held:
        del result.outcomes[run_id]
    return _without(won, held, result), heads


def _take_back_terminals(ready: Sequence[Batch], won: Sequence[Batch], result: CommitResult) -> None:
    """Raises _TakenBack when a participant has written for a batch that is not among those that go in."""
    going = {batch.lease.run_id for batch in won}
    lost = {batch.lease.run_id for batch in ready if batch.ending is not None} - going
    if lost:
        known = {run_id: result.outcomes[run_id] for run_id in lost & result.outcomes.keys()}
        raise _TakenBack(known, lost & result.held)


def _swap(won: Sequence[Batch]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            _SWAP,
            [
                (
                    len(batch.events),
                    batch.ending is None,
                    batch.lease.run_id,
                    batch.lease.user_id,
                    batch.lease.fence,
                    batch.base,
                )
                for batch in won
            ],
        )
        if won and cursor.rowcount != len(won):
            raise RuntimeError(f"{cursor.rowcount} ledgers of {len(won)} moved under their locks")


def _joined(parts: Sequence[Appended]) -> list[Appended]:
    """One part for all that a user's own runs append, so that it fills whole segments; leaks stay by themselves."""
    own: dict[UserId, list[str]] = {}
    leaked = []
    for part in parts:
        if part.leaked_from is None:
            own.setdefault(part.user_id, []).extend(part.entries)
        else:
            leaked.append(part)
    return [Appended(user_id, entries) for user_id, entries in own.items()] + leaked


def _bound_waiting(patience_s: float) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{max(int(patience_s * 1000), 1)}ms",))
