"""Each promise of the clean-up audit can break, is seen when it does, and is closed by `--fix`."""

import re
from datetime import timedelta

import pytest
from ag_ui.core import CustomEvent
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.agents.base import ApprovalRequest, TokenCount
from apps.chat.models import ApiToken, CommandReceipt, Message, Thread
from apps.execution.lifecycle import waiting
from apps.execution.models import Interrupt, Lease, Run, UserBudget
from apps.execution.settlement import Settlement
from apps.operations.cleanup import Cleanup, CleanupLimits
from apps.operations.models import ProcessReport
from apps.realtime.models import Erasure, RunLedger, Segment, Stream
from apps.realtime.retention import RetentionLimits
from apps.realtime.values import EndedRun, LogEntry
from tests.operations.world import World

pytestmark = pytest.mark.django_db

LIMITS = CleanupLimits(silent_s=10, run_deadline_s=700, receipt_hours=24, retention=RetentionLimits(rows=100))


@pytest.fixture
def world():
    return World()


@pytest.fixture
def audit(world):
    return Cleanup(LIMITS, world.log, world.recovery).audit()


@pytest.fixture
def ann(world):
    return world.user("ann")


def broken(audit):
    return [line.name for line in audit.report().broken]


def line(audit, name):
    return next(line for line in audit.report().lines if line.name == name)


def breaks_and_is_fixed(audit, name, says):
    """The line is broken, alone, and says so; `--fix` closes it; a second fix changes nothing more."""
    assert broken(audit) == [name]
    assert says in line(audit, name).detail
    audit.fix()
    assert broken(audit) == []
    audit.fix()
    assert broken(audit) == []


def ago(seconds):
    return timezone.now() - timedelta(seconds=seconds)


def test_a_deployment_at_work_keeps_every_promise(world, audit, ann):
    world.process(counts={"pool.connections": 3})
    world.ended(ann)
    world.running(ann)
    world.queued(ann)
    assert broken(audit) == []


def test_an_empty_deployment_keeps_every_promise(audit):
    assert broken(audit) == []


def test_looking_changes_nothing(world, audit, ann):
    world.running(ann)  # an orphan: no process reports
    CommandReceipt.objects.create(user_id=ann.user_id, command_id="c", digest="d", at=ago(90_000))
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert broken(audit)
    assert all(query["sql"].startswith("SELECT") for query in asked.captured_queries)


def test_a_process_that_fell_silent_is_named_with_the_time_of_its_silence(world, audit):
    world.process()
    ProcessReport.objects.update(reported_at=ago(45))
    # At least so long: the audit's clock goes on while the test runs.
    assert re.search(r"serve 41 on web-1 is silent for (4[5-9]|[5-9]\d) s", line(audit, "Processes report").detail)
    breaks_and_is_fixed(audit, "Processes report", "oldest report")
    assert ProcessReport.objects.get().ending == ProcessReport.Ending.LOST


def test_a_clean_report_says_how_old_its_knowledge_is(world, audit):
    world.process("a")
    world.process("b")
    ProcessReport.objects.filter(pk="a").update(reported_at=ago(4))
    assert re.fullmatch(r"2 processes \(oldest report [4-9] s\)", line(audit, "Processes report").detail)


def test_a_process_that_ended_while_it_held_something_is_a_leak(world, audit):
    world.process(counts={"pool.connections": 2, "log.commits_total": 9}, ending=ProcessReport.Ending.STOPPED)
    breaks_and_is_fixed(audit, "Ended processes held nothing", "serve 41 on web-1 ended with 2 pool.connections")


def test_a_run_without_any_living_process_is_ended_interrupted_with_one_terminal_event(world, audit, ann):
    run = world.running(ann)
    breaks_and_is_fixed(audit, "Running runs have an owner", f"run {run.pk} of user {ann.user_id}")
    run.refresh_from_db()
    assert (run.status, run.error_code) == ("interrupted", "interrupted")
    events = [event["type"] for event in world.log.read_run(ann.user_id, run.pk)]
    assert events.count("RUN_ERROR") == 1
    assert events[-1] == "RUN_ERROR"


def test_a_run_that_began_before_every_living_process_has_no_owner(world, audit, ann):
    run = world.running(ann)
    Run.objects.filter(pk=run.pk).update(started_at=ago(60))
    world.process()
    breaks_and_is_fixed(audit, "Running runs have an owner", f"run {run.pk}")


def test_a_run_past_every_deadline_has_no_owner_that_will_end_it(world, audit, ann):
    world.process()
    ProcessReport.objects.update(started_at=ago(5_000))
    young, old = world.running(ann), world.running(ann)
    Run.objects.filter(pk=old.pk).update(started_at=ago(LIMITS.run_deadline_s + 1))
    breaks_and_is_fixed(audit, "Running runs have an owner", f"1 of 2 running runs: run {old.pk}")
    young.refresh_from_db()
    assert young.status == "running"


def test_a_run_of_a_process_that_lives_is_left_alone(world, audit, ann):
    world.process()
    run = world.running(ann)
    audit.fix()
    run.refresh_from_db()
    assert run.status == "running"


def test_an_open_ledger_of_an_ended_run_is_closed(world, audit, ann):
    run = world.ended(ann)
    RunLedger.objects.filter(pk=run.pk).update(is_open=True)
    breaks_and_is_fixed(audit, "Ledgers are open as runs are", f"run {run.pk} has ended and its ledger is open")
    assert not RunLedger.objects.get(pk=run.pk).is_open


def test_an_open_ledger_without_a_run_is_closed(world, audit, ann):
    run = world.running(ann)
    Run.objects.all().delete()
    UserBudget.objects.all().delete()
    breaks_and_is_fixed(audit, "Ledgers are open as runs are", f"run {run.pk} has ended")


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("damage", ["closed", "gone"])
def test_an_open_run_without_an_open_ledger_is_ended_because_it_can_log_nothing(world, audit, ann, state, damage):
    world.process()
    run = getattr(world, state)(ann)
    ledger = RunLedger.objects.filter(pk=run.pk)
    if damage == "closed":
        ledger.update(is_open=False)
    else:
        ledger.delete()
    breaks_and_is_fixed(audit, "Ledgers are open as runs are", f"run {run.pk} is {state} and has no open ledger")
    run.refresh_from_db()
    assert run.status == "interrupted"


@pytest.mark.parametrize("field", ["queued", "running", "waiting"])
def test_a_budget_that_counts_other_runs_than_there_are_is_counted_again(world, audit, ann, field):
    world.process()
    world.running(ann)
    world.queued(ann)
    UserBudget.objects.update(**{field: 7})
    breaks_and_is_fixed(audit, "Budgets count their runs", f"user {ann.user_id}: 7 {field} counted")
    budget = UserBudget.objects.get()
    assert (budget.queued, budget.running, budget.waiting) == (1, 1, 0)


def test_receipts_are_kept_for_a_day_and_no_longer(audit, ann):
    CommandReceipt.objects.create(user_id=ann.user_id, command_id="young", digest="d", at=ago(23 * 3600))
    CommandReceipt.objects.create(user_id=ann.user_id, command_id="old", digest="d", at=ago(25 * 3600))
    breaks_and_is_fixed(audit, "Command receipts expire", "1 of 2 receipts")
    assert CommandReceipt.objects.get().command_id == "young"


def test_expired_and_revoked_tokens_go_and_valid_ones_stay(audit, ann):
    for name, expires_at, revoked_at in (
        ("for ever", None, None),
        ("valid", ago(-60), None),
        ("expired", ago(60), None),
        ("revoked", None, ago(60)),
    ):
        ApiToken.objects.create(
            token_hash=name, user_id=ann.user_id, name=name, expires_at=expires_at, revoked_at=revoked_at
        )
    breaks_and_is_fixed(audit, "Tokens expire", "2 of 4 tokens")
    assert {token.name for token in ApiToken.objects.all()} == {"for ever", "valid"}


def test_a_deleted_thread_leaves_nothing_but_the_word_that_it_is_gone(world, audit, ann):
    run, other = world.ended(ann), world.ended(ann)
    deleted = CustomEvent(name="turnout.thread.deleted", value={"id": run.thread_id})
    world.log.append(ann.user_id, [LogEntry(deleted, run.thread)])
    Thread.objects.filter(pk=run.thread_id).delete()
    breaks_and_is_fixed(audit, "Deleted threads are blanked", f"events of thread {run.thread_id} of user {ann.user_id}")
    assert all(event["name"] == "turnout.removed" for event in world.log.read_run(ann.user_id, run.pk))
    assert "RUN_STARTED" in {event["type"] for event in world.log.read_run(ann.user_id, other.pk)}
    assert "turnout.thread.deleted" in "".join(row.payload for row in Segment.objects.all())


def test_an_erasure_that_takes_its_steps_is_no_finding_and_one_that_stands_still_is(world, audit, ann):
    run = world.ended(ann)
    Thread.objects.filter(pk=run.thread_id).delete()
    world.log.begin_erasure(ann.user_id, run.thread)
    assert broken(audit) == []
    Erasure.objects.update(asked_at=ago(3_600))
    breaks_and_is_fixed(audit, "Deleted threads are blanked", f"events of thread {run.thread_id} of user {ann.user_id}")


def test_a_log_that_is_not_trimmed_is_seen_and_trimmed(world, audit, ann):
    run = world.ended(ann)
    Segment.objects.update(created_at=ago(8 * 86_400))
    Stream.objects.update(oldest_at=ago(8 * 86_400))
    breaks_and_is_fixed(audit, "The log keeps to its bounds", f"rows of user {ann.user_id} are to be trimmed")
    assert not Segment.objects.exists()
    assert Stream.objects.get().tail == Stream.objects.get().head
    assert world.log.read_run(ann.user_id, run.run_id) == []


def test_what_still_runs_in_a_deleted_thread_is_not_accused(world, audit, ann):
    world.process()
    run = world.running(ann)
    Thread.objects.filter(pk=run.thread_id).delete()
    assert broken(audit) == []


def test_nothing_of_a_deleted_user_is_left_and_nothing_of_the_others_goes(world, audit, ann):
    world.process()
    bob = world.user("bob")
    for identity in (ann, bob):
        run = world.ended(identity)
        Message.objects.create(
            thread_id=run.thread_id, user_id=identity.user_id, message_id="m", run_id=run.pk, role="assistant"
        )
        CommandReceipt.objects.create(user_id=identity.user_id, command_id="c", digest="d")
        ApiToken.objects.create(token_hash=identity.name, user_id=identity.user_id)
    world.queued(ann)
    User.objects.filter(pk=ann.user_id).delete()
    breaks_and_is_fixed(audit, "Deleted users left nothing", "kinds of rows: ")
    for model in (Run, RunLedger, Segment, Stream, UserBudget, Message, CommandReceipt, ApiToken):
        assert {row.user_id for row in model.objects.all()} == {bob.user_id}


def test_many_findings_are_counted_exactly_and_named_in_part(audit, ann):
    for number in range(12):
        CommandReceipt.objects.create(user_id=ann.user_id, command_id=f"c{number}", digest="d", at=ago(90_000 - number))
    detail = line(audit, "Command receipts expire").detail
    assert detail.startswith("12 of 12 receipts: ")
    assert detail.endswith(" and 9 more")


def waits(world, ann):
    """A run that waits for approval; its call."""
    run = world.running(ann)
    request = ApprovalRequest("call-1", "write", "{}", "Write?")
    until = timezone.now() + timedelta(hours=1)
    asked = waiting(run.thread, run.run_id, TokenCount(), request, until)
    ended = EndedRun(run.run_id, run.thread, run.owner, run.fence, asked.status, {}, None, waits_for=asked.waits_for)
    Settlement().write([ended])
    RunLedger.objects.filter(pk=run.pk).update(is_open=False)
    return Interrupt.objects.get(run_id=run.pk)


def test_a_call_past_its_time_is_closed_and_its_run_ends(world, audit, ann):
    world.process()
    call = waits(world, ann)
    assert broken(audit) == []
    Interrupt.objects.update(expires_at=ago(120))
    breaks_and_is_fixed(audit, "Approvals do not stay open", f"run {call.run_id}")
    assert Run.objects.get().status == "timed_out"


def test_a_run_that_waits_for_nothing_ends_and_a_call_of_a_run_that_waits_no_more_is_closed(world, audit, ann):
    world.process()
    call = waits(world, ann)
    Interrupt.objects.update(decision="denied")
    breaks_and_is_fixed(audit, "Approvals do not stay open", f"run {call.run_id}")
    Interrupt.objects.update(decision="")
    breaks_and_is_fixed(audit, "Approvals do not stay open", f"run {call.run_id}")


@pytest.mark.parametrize("damage", ["ended run", "budget"])
def test_a_reservation_that_was_never_settled_is_given_back(world, audit, ann, damage):
    world.process()
    world.ended(ann)
    if damage == "ended run":
        Run.objects.update(reserved_tokens=500)
    UserBudget.objects.update(reserved_tokens=500)
    breaks_and_is_fixed(audit, "Reservations are settled", "500 tokens")
    assert (UserBudget.objects.get().reserved_tokens, Run.objects.get().reserved_tokens) == (0, 0)


def test_a_lease_that_no_living_process_keeps_is_ended_with_its_runs(world, audit, ann):
    world.process()
    run = world.running(ann)
    Lease.objects.take("gone")
    Run.objects.update(process_id="gone")
    breaks_and_is_fixed(audit, "Leases have an owner", "lease of process gone")
    assert Run.objects.get(pk=run.pk).status == "interrupted"


def test_a_silent_process_is_named_with_what_it_held_last(world, audit):
    world.process(counts={"executor.running": 3, "pool.connections": 2, "log.commits_total": 9})
    ProcessReport.objects.update(reported_at=ago(60))
    detail = line(audit, "Processes report").detail
    assert "3 executor.running then" in detail
    assert "2 pool.connections then" in detail
    assert "commits" not in detail
