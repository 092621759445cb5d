"""Is everything closed that should be? Runs, ledgers, budgets, processes, receipts, tokens, and rows of the deleted.

Each check is one SELECT where rows are compared with rows, so that a live system, which moves while it is
watched, is never accused of being between two states. What processes hold is known from their last reports, and
the audit says how old those are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Exists, Min, Model, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from apps.agents.base import TokenCount
from apps.chat.attachments import AttachmentLimits, forget_thread, remove_due
from apps.chat.models import ApiToken, Attachment, CommandReceipt, Thread
from apps.chat.snapshot import needed_from
from apps.execution.lifecycle import interrupted
from apps.execution.models import Run, UserBudget
from apps.execution.recovery import Recovery
from apps.execution.settlement import leave
from apps.execution.stalled_jobs import delete_stalled_jobs, has_jobs, jobs_at_work, stalled_jobs
from apps.execution.states import RunStatus
from apps.operations.auditing import Audit, Check, Tally
from apps.operations.books import FIX, Books
from apps.operations.census import held
from apps.operations.deletion import begin_deletion, delete_now, owned_models
from apps.operations.models import ProcessReport
from apps.realtime.erasing import begin_erasure, erase_step, says_something
from apps.realtime.log import EventLog
from apps.realtime.models import Erasure, RunLedger, Segment, Stream, Tombstone
from apps.realtime.retention import RetentionLimits, overdue_streams, rows_due, trim_step
from apps.vocabulary import RunId, ThreadId, UserId

WITH_LEDGER_OPEN = (RunStatus.QUEUED, RunStatus.RUNNING)  # a waiting run has its terminal event already
CHUNK = 500  # rows and users looked at together
ERASED_WITHIN = timedelta(minutes=10)  # an erasure that takes its steps is no finding before
DELETED_WITHIN = timedelta(minutes=10)  # nor is a deletion


@dataclass(frozen=True, slots=True)
class CleanupLimits:
    """When something counts as left behind."""

    silent_s: float  # a process whose last report is older is missing
    run_deadline_s: float  # a run that started longer ago can no longer end by itself
    receipt_hours: float  # how long a command id is remembered
    retention: RetentionLimits  # what one user's log may hold
    attachments: AttachmentLimits = field(default_factory=AttachmentLimits)
    job_stalled_s: float = 90.0  # a wake-up whose worker is silent for longer


class Cleanup:
    """The checks of `manage.py audit_cleanup`; `--fix` closes through the log and execution's own recovery."""

    def __init__(self, limits: CleanupLimits, log: EventLog, recovery: Recovery) -> None:
        self._limits = limits
        self._log = log
        self._recovery = recovery
        self._books = Books(log, limits.silent_s)

    def audit(self) -> Audit:
        """All checks, in the order in which `--fix` closes them."""
        look = "look into the log of these processes for a failed clean-up, then run it with --fix"
        return Audit(
            "Clean-up",
            (
                Check("Processes report", self._silent_processes, FIX, self._mark_lost),
                Check("Ended processes held nothing", self._held_at_the_end, look, self._forget_held),
                *self._books.before_runs(),
                Check("Running runs have an owner", self._orphaned_runs, FIX, self._end_orphans),
                Check("Ledgers are open as runs are", self._wrong_ledgers, FIX, self._close_ledgers),
                *self._books.after_runs(),
                Check("Wake-ups have a worker", self._stalled_jobs, FIX, self._delete_stalled_jobs),
                Check("Command receipts expire", self._old_receipts, FIX, self._delete_receipts),
                Check("Attachments are held or expire", self._old_attachments, FIX, self._remove_attachments),
                Check("Tokens expire", self._old_tokens, FIX, self._delete_tokens),
                Check("The log keeps to its bounds", self._overdue_streams, FIX, self._trim_streams),
                Check("Deleted threads are blanked", self._unblanked_threads, FIX, self._blank_threads),
                Check("Deleted users left nothing", self._rows_of_nobody, FIX, self._delete_rows_of_nobody),
            ),
        )

    # -- processes

    def _silent_processes(self) -> Tally:
        unended = ProcessReport.objects.filter(ending="").with_age()
        ages = [report.age.total_seconds() for report in unended]
        tally = Tally("processes", seen=len(ages))
        if ages:
            tally.note = f"oldest report {max(ages):.0f} s"
        for report in ProcessReport.objects.silent(self._limits.silent_s).with_age():
            last = "".join(f", {number} {name} then" for name, number in sorted(held(report.counts).items()))
            tally.add_wrong(f"{report} is silent for {report.age.total_seconds():.0f} s{last}")
        return tally

    def _mark_lost(self) -> None:
        ProcessReport.objects.silent(self._limits.silent_s).mark_lost()
        ProcessReport.objects.all().forget_old()

    def _held_at_the_end(self) -> Tally:
        # Of a lost process nothing is known but that the system took its sockets and memory: it is no finding here.
        tally = Tally("processes that stopped in order")
        for report in ProcessReport.objects.filter(ending=ProcessReport.Ending.STOPPED):
            tally.seen += 1
            if left := held(report.counts):
                named = ", ".join(f"{number} {name}" for name, number in sorted(left.items()))
                tally.add_wrong(f"{report} ended with {named}")
        return tally

    def _forget_held(self) -> None:
        stopped = ProcessReport.objects.filter(ending=ProcessReport.Ending.STOPPED)
        holding = [report.pk for report in stopped if held(report.counts)]
        ProcessReport.objects.filter(pk__in=holding).delete()

    # -- runs

    def _orphans(self) -> QuerySet[Run]:
        """Running runs that no living process owns: without a lease, begun before all of them, or past any deadline."""
        living = ProcessReport.objects.running(self._limits.silent_s).aggregate(first=Min("started_at"))["first"]
        overdue = timezone.now() - timedelta(seconds=self._limits.run_deadline_s)
        if living is None:
            return Run.objects.running()
        unprotected = Q(Exists(Run.objects.ownerless().filter(pk=OuterRef("pk"))))
        return Run.objects.running().filter(Q(started_at__lt=max(living, overdue)) | unprotected)

    def _orphaned_runs(self) -> Tally:
        tally = Tally("running runs", seen=Run.objects.running().count())
        for run in self._orphans().order_by("pk"):
            tally.add_wrong(f"run {run.pk} of user {run.user_id}, since {_moment(run.started_at)}")
        return tally

    def _end_orphans(self) -> None:
        for run in self._orphans().order_by("user_id", "pk"):
            self._recovery.end(run.run_id, interrupted(TokenCount()))

    def _wrong_ledgers(self) -> Tally:
        tally = Tally("ledgers", seen=RunLedger.objects.count())
        for ledger in _ledgers_left_open().order_by("pk"):
            tally.add_wrong(f"run {ledger.pk} has ended and its ledger is open")
        for run in _runs_without_open_ledger().order_by("pk"):
            tally.add_wrong(f"run {run.pk} is {run.status} and has no open ledger")
        return tally

    def _close_ledgers(self) -> None:
        for ledger in _ledgers_left_open().order_by("user_id", "pk"):
            with transaction.atomic():
                self._log.close_run(ledger.owner, RunId(ledger.pk))
        for run in _runs_without_open_ledger().order_by("user_id", "pk"):
            if not self._recovery.end(run.run_id, interrupted(TokenCount())):
                _leave_queue(run)

    def _stalled_jobs(self) -> Tally:
        tally = Tally("wake-ups at work")
        if has_jobs():
            tally.seen = jobs_at_work()
            for job_id, queue in stalled_jobs(self._limits.job_stalled_s):
                tally.add_wrong(f"job {job_id} of queue {queue}, whose worker is gone")
        return tally

    def _delete_stalled_jobs(self) -> None:
        if has_jobs():
            delete_stalled_jobs(self._limits.job_stalled_s)

    # -- what expires

    def _forgotten_before(self) -> datetime:
        return timezone.now() - timedelta(hours=self._limits.receipt_hours)

    def _old_receipts(self) -> Tally:
        tally = Tally("receipts", seen=CommandReceipt.objects.count())
        for receipt in CommandReceipt.objects.filter(at__lt=self._forgotten_before()).order_by("at"):
            tally.add_wrong(f"{receipt} of user {receipt.user_id}, {_moment(receipt.at)}")
        return tally

    def _delete_receipts(self) -> None:
        CommandReceipt.objects.all().forget(self._forgotten_before())

    def _old_attachments(self) -> Tally:
        tally = Tally("attachments", seen=Attachment.objects.count())
        late = timedelta(hours=self._limits.attachments.unattached_hours + 2)  # they are looked for once an hour
        for attachment in Attachment.objects.due(timezone.now() - late):
            tally.add_wrong(f"{attachment} of user {attachment.user_id}")
        for attachment in Attachment.objects.without_thread():
            tally.add_wrong(f"{attachment} of user {attachment.user_id}, whose thread is gone")
        return tally

    def _remove_attachments(self) -> None:
        for attachment in Attachment.objects.without_thread():
            forget_thread(UserId(attachment.user_id), ThreadId(attachment.thread_id))
        remove_due(self._limits.attachments)

    def _old_tokens(self) -> Tally:
        tally = Tally("tokens", seen=ApiToken.objects.count())
        for token in _ended_tokens().order_by("pk"):
            tally.add_wrong(str(token))
        return tally

    def _delete_tokens(self) -> None:
        _ended_tokens().delete()

    def _overdue_streams(self) -> Tally:
        tally = Tally("streams", seen=Stream.objects.count())
        for user_id, rows in self._overdue():
            tally.add_wrong(f"{rows} or more rows of user {user_id} are to be trimmed")
        return tally

    def _overdue(self) -> Iterator[tuple[UserId, int]]:
        # Between two turns a stream may be a little over its bounds; only what retention has left undone is a finding.
        limits = self._limits.retention.with_slack()
        now, after = timezone.now(), UserId(0)
        while users := overdue_streams(limits, now, after, CHUNK):
            for user_id in users:
                if rows := rows_due(user_id, limits, now, needed_from):
                    yield user_id, rows
            after = users[-1]

    def _trim_streams(self) -> None:
        for user_id, _ in self._overdue():
            while trim_step(user_id, self._limits.retention, timezone.now(), needed_from):
                pass

    # -- what is deleted

    def _unblanked_threads(self) -> Tally:
        tally = Tally("deleted threads")
        for user_id, thread_id in _deleted_threads():
            tally.seen += 1
            if unblanked := sum(map(says_something, _entries_of(user_id, thread_id))):
                tally.add_wrong(f"{unblanked} events of thread {thread_id} of user {user_id}")
        return tally

    def _blank_threads(self) -> None:
        for user_id, thread_id in _deleted_threads():
            with transaction.atomic():
                begin_erasure(UserId(user_id), ThreadId(thread_id))
            while erase_step(UserId(user_id), ThreadId(thread_id), CHUNK):
                pass

    def _rows_of_nobody(self) -> Tally:
        kinds = owned_models()
        tally = Tally("kinds of rows", seen=len(kinds))
        for kind in kinds:
            if number := _of_nobody(kind).count():
                tally.add_wrong(f"{number} {kind._meta.verbose_name_plural}")  # noqa: SLF001 - Django's own public name
        at_work = Tombstone.objects.filter(finished_at=None).count()
        tally.note = f"{at_work} users are being deleted" if at_work else ""
        return tally

    def _delete_rows_of_nobody(self) -> None:
        users = {user_id for kind in owned_models() for user_id in _of_nobody(kind).values_list("user_id", flat=True)}
        for user_id in sorted(users):
            begin_deletion(UserId(user_id))
            delete_now(UserId(user_id), CHUNK)


def _ledgers_left_open() -> QuerySet[RunLedger]:
    unended = Run.objects.filter(pk=OuterRef("pk")).filter(status__in=WITH_LEDGER_OPEN)
    return RunLedger.objects.filter(~Exists(unended), is_open=True)


def _runs_without_open_ledger() -> QuerySet[Run]:
    ledger = RunLedger.objects.filter(pk=OuterRef("pk"), is_open=True)
    return Run.objects.filter(~Exists(ledger), status__in=WITH_LEDGER_OPEN)


def _leave_queue(run: Run) -> None:
    """End a queued run that can never log an event, as the claim would do it when its turn came."""
    with transaction.atomic():
        budget = UserBudget.objects.locked(run.owner)
        stored = Run.objects.owned(run.owner).queued().filter(pk=run.pk).first()
        if stored is None:
            return
        leave(budget, stored, RunStatus.INTERRUPTED)


def _ended_tokens() -> QuerySet[ApiToken]:
    return ApiToken.objects.filter(Q(expires_at__lte=timezone.now()) | Q(revoked_at__isnull=False))


def _deleted_threads() -> list[tuple[int, str]]:
    """Threads that are gone and in which nothing runs any more: what a run says to its end is blanked with its end."""
    ledgers = RunLedger.objects.order_by("user_id", "thread_id")
    gone = ledgers.filter(~Exists(Thread.objects.filter(pk=OuterRef("thread_id"))))
    at_work = RunLedger.objects.filter(thread_id=OuterRef("thread_id"), is_open=True)
    erased_now = Erasure.objects.filter(thread_id=OuterRef("thread_id"), asked_at__gt=Now() - ERASED_WITHIN)
    return list(gone.filter(~Exists(at_work), ~Exists(erased_now)).values_list("user_id", "thread_id").distinct())


def _rows_naming(user_id: int, thread_id: str) -> QuerySet[Segment]:
    return Segment.objects.filter(user_id=user_id, payload__contains=thread_id).order_by("first_seq")


def _entries_of(user_id: int, thread_id: str) -> Iterator[Mapping[str, Any]]:
    for row in _rows_naming(user_id, thread_id).iterator(chunk_size=64):
        yield from (entry for entry in orjson.loads(row.payload) if entry["thread_id"] == thread_id)


def _of_nobody(kind: type[Model]) -> QuerySet[Any]:
    """Rows of users who are no more, and whose deletion is not under way."""
    user = get_user_model().objects.filter(pk=OuterRef("user_id"))
    deleted_now = Tombstone.objects.filter(
        pk=OuterRef("user_id"), finished_at=None, asked_at__gt=Now() - DELETED_WITHIN
    )
    return kind._default_manager.filter(~Exists(user), ~Exists(deleted_now))  # noqa: SLF001 - Django's own public name


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment is not None else "an unknown time"
