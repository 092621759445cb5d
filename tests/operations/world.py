"""A small world to audit: users, threads and runs, made by the calls that make them in production."""

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.utils import timezone

from apps.agents.base import TokenCount
from apps.chat.folding import MessageFold
from apps.chat.models import Thread
from apps.execution.admission import RunRequest
from apps.execution.lifecycle import succeeded
from apps.execution.limits import RunLimits
from apps.execution.models import Lease, Run
from apps.execution.recovery import Recovery
from apps.execution.service import RunService
from apps.operations.models import ProcessReport
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.protocol import IfBusy
from apps.vocabulary import Identity, MessageId, RunId, ThreadId, UserId, new_id
from project.configuration import Configuration
from project.limits import default_plan

PROCESS = "process-1"
FIRST = {"host": "web-1", "pid": 41, "kind": "serve", "version": "0.1.0"}
LIMITS = RunLimits(
    queued_runs=1_000,
    run_slots_per_user=3,
    run_slots=10,
    run_timeout_s=600.0,
    model_calls=8,
    approval_timeout_s=600.0,
    cancel_timeout_s=5.0,
    cleanup_timeout_s=5.0,
    history_messages=40,
    history_bytes=131_072,
    sweep_s=1.0,
)


@dataclass
class World:
    """One deployment: a log, the service that admits runs, and the recovery that ends them."""

    def __post_init__(self):
        self.log = EventLog(LogLimits())
        fold = MessageFold(self.log)
        self.recovery = Recovery(self.log, fold)
        self.runs = RunService(
            log=self.log,
            limits=LIMITS,
            choose_paths=lambda _identity: {},
            known_agents={"metronome": 1_000},
            plans=lambda _identity: default_plan(Configuration()),
            fold=fold,
            process_id=PROCESS,
        )

    def user(self, name):
        """A user, who can log in."""
        return Identity(UserId(User.objects.create_user(name).pk), name)

    def thread(self, identity):
        """A thread of this user."""
        return ThreadId(Thread.objects.create(user_id=identity.user_id).pk)

    def queued(self, identity, thread_id=None):
        """A run that waits."""
        thread_id = thread_id or self.thread(identity)
        message_id = MessageId(new_id())
        message = {"id": message_id, "role": "user", "content": "count=3", "createdAt": timezone.now().timestamp()}
        request = RunRequest(
            run_id=RunId(new_id()),
            thread_id=thread_id,
            agent="metronome",
            text="count=3",
            message_id=message_id,
            message=message,
            if_busy=IfBusy.ENQUEUE,
        )
        return Run.objects.get(pk=self.runs.admit(identity, request).run_id)

    def running(self, identity, thread_id=None):
        """A run that a process has claimed."""
        queued = self.queued(identity, thread_id)
        if ProcessReport.objects.filter(pk=PROCESS).exists():
            Lease.objects.take(PROCESS)
        claimed = self.runs.claim()
        assert claimed is not None
        assert claimed.run.pk == queued.pk
        return claimed.run

    def ended(self, identity, thread_id=None):
        """A run that came to its end."""
        run = self.running(identity, thread_id)
        assert self.recovery.end(run.run_id, succeeded(run.thread, run.run_id, TokenCount()))
        return Run.objects.get(pk=run.pk)

    def process(self, process_id=PROCESS, counts=None, ending=""):
        """The report of a process."""
        ProcessReport.objects.report(process_id, FIRST, counts or {}, ending)
        return ProcessReport.objects.get(pk=process_id)
