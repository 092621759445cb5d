"""Admission and claims without an executor: the service on a real log, in the thread of the test."""

import time

import orjson

from apps.execution.models import Run, UserBudget
from apps.execution.recovery import Recovery
from apps.execution.service import RunService
from apps.execution.settlement import Settlement
from apps.execution.succession import Succession
from apps.realtime.coalescing import encode_entry
from apps.realtime.commit import Batch, Committer, FrozenEvent
from apps.realtime.log import EventLog, LogLimits, nobody
from apps.realtime.models import RunLedger, Segment
from apps.realtime.segments import SegmentLimits
from tests.execution.running_room import PATHS, Notes, a_request, in_transaction, limits_with

OWNER = "0198c2d4-0000-7000-8000-000000000001"  # the process that claims at the desk


class Desk:
    """Each call is one transaction, as a command is."""

    def __init__(self, **limits):
        self.fold = Notes()
        self.restartable = ()
        self.log = EventLog(LogLimits())
        run_limits, plan = limits_with(**limits)
        self.runs = RunService(
            log=self.log,
            limits=run_limits,
            choose_paths=lambda _: PATHS,
            known_agents={"metronome": 1_000, "faulty": 100},
            plans=lambda _: plan,
            fold=self.fold,
            process_id=OWNER,
        )

    def end_orphans(self, process_id=OWNER):
        """What the reaper does; how many runs it ended."""
        succession = Succession(
            Recovery(self.log, self.fold),
            admit=self.runs.admit,
            put_back=self.fold.ask_again,
            restartable=self.restartable,
            restarts=1,
        )
        return sum(succession.end_orphan(process_id, run_id) for run_id in succession.runs_of(process_id))

    def admit(self, identity, **changes):
        return in_transaction(self.runs.admit, identity, a_request(**changes))

    def cancel(self, identity, run_id):
        return in_transaction(self.runs.cancel, identity.user_id, run_id)

    def finish(self, claimed, ending):
        """Commit the run's terminal event, as the log's writer does."""
        lease = claimed.lease
        committer = Committer(settle=Settlement(), fold=self.fold, limits=SegmentLimits(), may_receive_leaks=nobody)
        wire = ending.event.model_dump(mode="json", by_alias=True)
        entry = encode_entry(lease.thread_id, lease.run_id, time.time(), wire)
        batch = Batch(lease, lease.logged, (FrozenEvent(entry, len(entry)),), ending)
        return committer.commit([batch]).outcomes[lease.run_id]

    def claim(self):
        claimed = self.runs.claim()
        return None if claimed is None else claimed.lease.run_id


def events_of(identity, run_id=None):
    payloads = Segment.objects.filter(user_id=identity.user_id).order_by("first_seq").values_list("payload", flat=True)
    entries = [entry for payload in payloads for entry in orjson.loads(payload)]
    return [entry["event"] for entry in entries if run_id in (None, entry["run_id"])]


def places_of(identity):
    """(run id, place, whether the message is told) of every queue event, in order."""
    payloads = Segment.objects.filter(user_id=identity.user_id).order_by("first_seq").values_list("payload", flat=True)
    return [
        (entry["run_id"], entry["event"]["value"]["place"], "message" in entry["event"]["value"])
        for payload in payloads
        for entry in orjson.loads(payload)
        if entry["event"].get("name") == "turnout.run.queued"
    ]


def assert_books_balance():
    """The counts of every budget are the runs that there are, and a run's ledger is open exactly as long as it."""
    for budget in UserBudget.objects.all():
        runs = Run.objects.filter(user_id=budget.user_id)
        counted = [runs.filter(status=status).count() for status in ("queued", "running", "waiting")]
        assert counted == [budget.queued, budget.running, budget.waiting]
        assert budget.reserved_tokens == sum(runs.values_list("reserved_tokens", flat=True))
        assert not runs.exclude(status__in=("queued", "running")).exclude(reserved_tokens=0).exists()
        assert (budget.turn_at is None) == (budget.queued == 0)
    for run in Run.objects.all():
        assert RunLedger.objects.get(run_id=run.pk).is_open == (run.status in ("queued", "running"))
