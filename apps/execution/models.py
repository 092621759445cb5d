"""Runs, and what each user's runs hold. Rows are changed by the service and by settlement, under the budget's
lock.

Lock order, for every transaction that touches a run: budget, thread, run, ledger, stream. The budget's lock
guards all runs of its user, so the rows of `Run` are never locked for their own sake.
"""

from datetime import UTC, date, datetime
from typing import Any

from django.db import models, transaction
from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.db.transaction import TransactionManagementError

from apps.execution.lifecycle import MESSAGE_CHARACTERS
from apps.execution.states import OPEN, RunStatus, move
from apps.vocabulary import ID_LENGTH, PinnedPath, PinnedPaths, RunId, ThreadId, UserId

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class StaleRun(RuntimeError):  # noqa: N818 - names the state that was met
    """The run was moved, or claimed under a newer fence, by someone else since it was read; nothing was
    changed.
    """


class RunQuerySet(models.QuerySet["Run"]):
    """The verbs of reading runs; every one that reads a user's runs names the user first."""

    def owned(self, user_id: UserId) -> "RunQuerySet":
        """The one door to a user's runs."""
        return self.filter(user_id=user_id)

    def open(self) -> "RunQuerySet":
        """Runs that count against their user's budget."""
        return self.filter(status__in=sorted(OPEN))

    def queued(self) -> "RunQuerySet":
        """Runs that were admitted and not claimed."""
        return self.filter(status=RunStatus.QUEUED)

    def running(self) -> "RunQuerySet":
        """Runs that a process has claimed and not ended."""
        return self.filter(status=RunStatus.RUNNING)

    def of_process(self, process_id: str) -> "RunQuerySet":
        """Running runs that this process has claimed."""
        return self.running().filter(process_id=process_id)

    def ownerless(self) -> "RunQuerySet":
        """Running runs whose process holds no lease: it gave its lease back, or lost it."""
        return self.running().filter(~Exists(Lease.objects.filter(pk=OuterRef("process_id"))))

    def claimable(self) -> "RunQuerySet":
        """Queued runs in whose thread nothing runs: taken by ordinal, a thread's runs never overlap."""
        same_thread = Run.objects.filter(user_id=OuterRef("user_id"), thread_id=OuterRef("thread_id"))
        return self.queued().filter(~Exists(same_thread.running()))

    def used_since(self, midnight: datetime) -> dict[str, int]:
        """The tokens of these runs: altogether, and of those that ended since then; and how many runs there are."""
        today = Q(ended_at__gte=midnight)
        return self.aggregate(
            runs=Count("pk"),
            input_total=Sum("input_tokens", default=0),
            output_total=Sum("output_tokens", default=0),
            input_today=Sum("input_tokens", filter=today, default=0),
            output_today=Sum("output_tokens", filter=today, default=0),
        )


class Run(models.Model):
    """One answer to one message. This row is the truth about it; tasks are only wake-ups."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True)
    user_id = models.BigIntegerField()
    user_name = models.CharField(max_length=150, help_text="as at admission")
    thread_id = models.CharField(max_length=ID_LENGTH)
    ordinal = models.BigIntegerField(help_text="this user's n-th run: the order of the queue, whatever clocks say")
    agent = models.CharField(max_length=100)
    text = models.TextField(help_text="what the user asked")
    message_id = models.CharField(max_length=128)
    message = models.JSONField(help_text="the user's message as AG-UI has it")
    attachments = models.JSONField(default=list)
    parent_run_id = models.CharField(max_length=ID_LENGTH, null=True, blank=True)  # noqa: DJ001 - null is "none"
    after_message_id = models.CharField(
        max_length=128, blank=True, help_text="the answer that a resumed run goes on from; else empty"
    )
    retry_of = models.CharField(max_length=ID_LENGTH, null=True, blank=True)  # noqa: DJ001 - null is "none"
    status = models.CharField(
        max_length=11, default=RunStatus.QUEUED.value, choices=[(status.value, status.value) for status in RunStatus]
    )
    cancel_requested = models.BooleanField(default=False)
    paths = models.JSONField(default=dict, help_text="{seam: {path, version}}, pinned at the claim")
    process_id = models.CharField(
        max_length=ID_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="the process that claimed it, whose lease",
    )
    restarts = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="how often this question was asked again because a process died"
    )
    fence = models.IntegerField(default=0, help_text="counts the claims; only the newest owner may end the run")
    reserved_tokens = models.BigIntegerField(default=0, help_text="of today's quota, until the run has ended")
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    error_code = models.CharField(max_length=30, null=True, blank=True)  # noqa: DJ001 - null is "no error"
    error_message = models.CharField(
        max_length=MESSAGE_CHARACTERS, default="", blank=True, help_text="as the user was told"
    )
    admitted_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["user_id", "ordinal"], name="execution_run_ordinal"),
            models.UniqueConstraint(
                fields=["user_id", "thread_id"],
                condition=Q(status=RunStatus.RUNNING.value),
                name="execution_run_one_running_in_a_thread",
            ),
            models.CheckConstraint(
                condition=Q(status__in=[status.value for status in RunStatus]), name="execution_run_known_status"
            ),
        )
        indexes = (
            # Whole, not partial: SQLite does not use a partial index for a bound parameter.
            models.Index(fields=["status"], name="execution_run_status"),
            models.Index(fields=["user_id", "status", "ordinal"], name="execution_run_queue"),
            models.Index(fields=["user_id", "thread_id", "status", "ordinal"], name="execution_run_thread"),
        )

    def __str__(self) -> str:
        return f"run {self.id} ({self.status})"

    @property
    def owner(self) -> UserId:
        """The only user who may see, cancel or pay for the run."""
        return UserId(self.user_id)

    @property
    def run_id(self) -> RunId:
        """The id, typed."""
        return RunId(self.id)

    @property
    def thread(self) -> ThreadId:
        """The thread's id, typed."""
        return ThreadId(self.thread_id)

    @property
    def parent(self) -> RunId | None:
        """The run that this one follows: the one it resumes, or the one it tries again."""
        parent = self.parent_run_id or self.retry_of
        return None if parent is None else RunId(parent)

    @property
    def pinned_paths(self) -> PinnedPaths:
        """The paths that the claim chose, by seam."""
        return {seam: PinnedPath(pin["path"], pin["version"]) for seam, pin in self.paths.items()}

    def move(self, to: RunStatus, **changes: Any) -> None:
        """Change the status by the table, and `changes` with it, in one conditional update.

        The caller holds the budget's lock. Raises IllegalMove, or StaleRun when the row is no longer as it
        was read.
        """
        current = RunStatus(self.status)
        move(current, to)
        moved = Run.objects.filter(pk=self.pk, status=current, fence=self.fence).update(status=to, **changes)
        if not moved:
            raise StaleRun(f"{self} under fence {self.fence} was moved by someone else")
        self.status = to
        for name, value in changes.items():
            setattr(self, name, value)


class UserBudgetQuerySet(models.QuerySet["UserBudget"]):
    """Locking, which comes first in every transaction that changes a user's runs."""

    def locked(self, user_id: UserId) -> "UserBudget":
        """The budget of this user, made if there is none, locked until the end of the caller's transaction.

        On SQLite the lock is the transaction itself (BEGIN IMMEDIATE). Raises TransactionManagementError
        outside of one.
        """
        if not transaction.get_connection().in_atomic_block:
            raise TransactionManagementError("a budget is locked for a transaction; open one first")
        rows = self.select_for_update(no_key=True)
        budget = rows.filter(pk=user_id).first()
        if budget is None:
            self.bulk_create([UserBudget(user_id=user_id)], ignore_conflicts=True)
            budget = rows.get(pk=user_id)
        return budget


class UserBudget(models.Model):
    """What one user's runs hold. Counting the runs instead let 16 concurrent admissions past a limit of 3."""

    user_id = models.BigIntegerField(primary_key=True)
    queued = models.PositiveIntegerField(default=0)
    running = models.PositiveIntegerField(default=0)
    waiting = models.PositiveIntegerField(default=0)
    admitted = models.BigIntegerField(default=0, help_text="runs admitted so far; the newest run's ordinal")
    last_started_at = models.DateTimeField(default=LONG_AGO)
    turn_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="the later of the last start and the oldest queued admission; none while nothing is queued",
    )

    day = models.DateField(default=LONG_AGO.date(), help_text="the day (UTC) that the used tokens belong to")
    used_tokens = models.BigIntegerField(default=0, help_text="of the runs that ended on that day")
    reserved_tokens = models.BigIntegerField(default=0, help_text="what the queued and running runs may use at most")
    tokens_per_day = models.BigIntegerField(null=True, blank=True, help_text="the quota at the last admission")
    waiting_runs_per_user = models.PositiveIntegerField(null=True, blank=True, help_text="as the quota")

    objects = UserBudgetQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(
                fields=["running", "turn_at", "user_id"],
                name="execution_budget_turn",
                condition=Q(turn_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"budget of user {self.user_id}: {self.queued} queued, {self.running} running, {self.waiting} waiting"

    @property
    def open_runs(self) -> int:
        """Runs that count against `open_runs_per_user`."""
        return self.queued + self.running + self.waiting

    def used_on(self, day: date) -> int:
        """The tokens of the runs that ended on this day."""
        return self.used_tokens if self.day == day else 0

    def settle(self, day: date, reserved: int, used: int) -> None:
        """Give a reservation back and count what was used, on the day on which the run ended. Not saved."""
        self.used_tokens = self.used_on(day) + used
        self.day = day
        self.reserved_tokens -= reserved

    def admit(self, now: datetime, reserved: int) -> int:
        """Count one more queued run with its reservation, and return its ordinal. Not saved."""
        self.queued += 1
        self.reserved_tokens += reserved
        self.admitted += 1
        if self.turn_at is None:
            self.turn_at = max(self.last_started_at, now)
        return self.admitted

    def start(self, now: datetime) -> None:
        """Count a queued run as running; the user's next turn is counted from here. Not saved."""
        self.count_move(RunStatus.QUEUED, RunStatus.RUNNING)
        self.last_started_at = max(self.last_started_at, now)
        if self.turn_at is not None:
            self.turn_at = max(self.turn_at, self.last_started_at)

    def count_move(self, before: RunStatus, after: RunStatus) -> None:
        """Move one run from one count to another; a run that ended is in none. Not saved."""
        if before.is_open:
            setattr(self, before, getattr(self, before) - 1)
        if after.is_open:
            setattr(self, after, getattr(self, after) + 1)
        if not self.queued:
            self.turn_at = None


class LeaseQuerySet(models.QuerySet["Lease"]):
    """Keeping a lease, and taking one away. Each is one statement, which compares and changes at once."""

    def renew(self, process_id: str) -> bool:
        """Count the lease up. False when it is not there: never taken, or taken away."""
        return bool(self.filter(pk=process_id).update(beat=models.F("beat") + 1))

    def take(self, process_id: str) -> None:
        """Begin a lease."""
        self.bulk_create([Lease(process_id=process_id)], ignore_conflicts=True)

    def take_away(self, process_id: str, beat: int) -> bool:
        """End a lease whose beat was seen to stand still. False when it has moved, or another was faster."""
        return bool(self.filter(pk=process_id, beat=beat).delete()[0])


class Lease(models.Model):
    """The word of one process that it lives, which all runs that it has claimed hang on.

    One row a process, not one a run: a beat then costs one small update, and locks no row that a commit wants. Nothing
    here is a time: whoever looks counts by a clock of their own for how long the beat stands still.
    """

    process_id = models.CharField(max_length=ID_LENGTH, primary_key=True)
    beat = models.BigIntegerField(default=0, help_text="counted up while the process and its event loop are at work")

    objects = LeaseQuerySet.as_manager()

    def __str__(self) -> str:
        return f"lease of process {self.process_id} at beat {self.beat}"


class InterruptQuerySet(models.QuerySet["Interrupt"]):
    """Calls of all users."""

    def owned(self, user_id: UserId) -> "InterruptQuerySet":
        """The one door to a user's calls."""
        return self.filter(user_id=user_id)


class Interrupt(models.Model):
    """One tool call that waits, or waited, for its user's word. Changed by `apps.execution.approvals` alone."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True)
    user_id = models.BigIntegerField()
    thread_id = models.CharField(max_length=ID_LENGTH)
    run_id = models.CharField(max_length=ID_LENGTH, unique=True, help_text="the run that asked")
    tool_call_id = models.CharField(max_length=128)
    tool = models.CharField(max_length=100)
    arguments = models.TextField(help_text="the JSON text that the tool is called with, if it is approved")
    digest = models.CharField(max_length=64, help_text="SHA-256 of tool and arguments, as they were asked for")
    question = models.TextField(blank=True, help_text="what the user was asked")
    asked_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    decision = models.CharField(max_length=9, blank=True, help_text="empty while it waits")
    decided_at = models.DateTimeField(null=True, blank=True)
    comment = models.TextField(blank=True, help_text="what the user said with the answer")
    resumed_run_id = models.CharField(max_length=ID_LENGTH, null=True, blank=True)  # noqa: DJ001 - null is "none"

    objects = InterruptQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(fields=["decision", "expires_at"], name="execution_interrupt_due"),
            models.Index(fields=["user_id", "thread_id"], name="execution_interrupt_thread"),
            models.Index(fields=["resumed_run_id"], name="execution_interrupt_resumed"),
        )

    def __str__(self) -> str:
        return f"call of {self.tool} in run {self.run_id} ({self.decision or 'waits'})"

    @property
    def owner(self) -> UserId:
        """The only user who may decide it."""
        return UserId(self.user_id)
