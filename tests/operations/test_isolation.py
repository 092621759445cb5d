"""Each promise of the isolation audit can break and is seen when it does; `--fix` blanks leaks and nothing else."""

import orjson
import pytest
from ag_ui.core import TextMessageContentEvent

from apps.chat.models import CommandReceipt, Message
from apps.execution.models import Run
from apps.operations.isolation import isolation_audit
from apps.realtime.appending import Appended, append_rows
from apps.realtime.coalescing import encode_entry
from apps.realtime.models import RunLedger, Segment, Stream
from apps.realtime.protocol import reply_error, reply_ok
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import LogEntry
from apps.vocabulary import ErrorCode, Refusal, new_id
from tests.operations.world import World

pytestmark = pytest.mark.django_db

SECRET = "canary-4711"


@pytest.fixture
def world():
    return World()


@pytest.fixture
def ann(world):
    return world.user("ann")


@pytest.fixture
def bob(world):
    return world.user("bob")


def broken():
    return [line.name for line in isolation_audit().report().broken]


def detail(name):
    return next(line.detail for line in isolation_audit().report().lines if line.name == name)


def content():
    return TextMessageContentEvent(message_id="m", delta=SECRET)


def say(world, owner, run, into=None):
    """Append one event of `run` to the stream of `into`, by the call that knows no fences."""
    world.log.append((into or owner).user_id, [LogEntry(content(), run.thread, run.run_id)])


def leak(owner, run, into):
    """What the old bridge does: an event of `owner`'s run in another user's stream, marked as such."""
    event = content().model_dump(mode="json", by_alias=True)
    entry = encode_entry(run.thread, run.run_id, 1.0, event)
    append_rows([Appended(into.user_id, [entry], leaked_from=owner.user_id)], SegmentLimits())


def test_two_users_at_work_keep_every_promise(world, ann, bob):
    for identity in (ann, bob):
        run = world.ended(identity)
        say(world, identity, world.running(identity))
        Message.objects.create(
            thread_id=run.thread_id, user_id=identity.user_id, message_id="m", run_id=run.pk, role="assistant"
        )
        CommandReceipt.objects.create(
            user_id=identity.user_id,
            command_id="c",
            digest="d",
            reply=reply_ok("c", {"run_id": run.pk, "thread_id": run.thread_id}),
        )
    assert broken() == []
    assert detail("Streams are whole") == "2 streams"


def test_an_event_of_another_users_run_is_found_even_when_nothing_marks_it(world, ann, bob):
    world.ended(bob)
    run = world.running(ann)
    say(world, ann, run, into=bob)
    assert broken() == ["Events are their owner's"]
    head = Stream.objects.get(pk=bob.user_id).head
    assert f"seq {head} of user {bob.user_id}" in detail("Events are their owner's")


def test_an_event_of_a_run_that_no_ledger_knows_is_found(world, ann):
    run = world.running(ann)
    stranger = LogEntry(content(), run.thread, new_id())
    world.log.append(ann.user_id, [stranger])
    assert broken() == ["Events are their owner's"]


def test_an_event_in_another_users_thread_is_found(world, ann, bob):
    world.log.append(ann.user_id, [LogEntry(content(), world.thread(bob), None)])
    assert broken() == ["Events are their owner's"]


def test_an_unfixable_finding_is_left_for_a_person(world, ann, bob):
    say(world, ann, world.running(ann), into=bob)
    before = list(Segment.objects.order_by("pk").values())
    isolation_audit().fix()
    assert list(Segment.objects.order_by("pk").values()) == before
    assert "keep a copy" in isolation_audit().report().broken[0].next_step


def test_a_leak_of_the_old_bridge_stays_a_finding_until_fix_blanks_it(world, ann, bob):
    run = world.running(ann)
    world.ended(bob)
    leak(ann, run, into=bob)
    world.ended(bob)
    assert broken() == ["No leaked events"]
    assert f"of user {bob.user_id} are user {ann.user_id}'s" in detail("No leaked events")
    head = Stream.objects.get(pk=bob.user_id).head

    isolation_audit().fix()

    assert broken() == []
    assert "(1 leaked ones are blanked)" in detail("No leaked events")
    rows = Segment.objects.filter(user_id=bob.user_id).order_by("first_seq")
    assert SECRET not in "".join(row.payload for row in rows)
    entries = [entry["seq"] for row in rows for entry in orjson.loads(row.payload)]
    assert entries == list(range(1, head + 1))


def test_fix_keeps_the_owners_own_copy_of_what_leaked(world, ann, bob):
    run = world.running(ann)
    say(world, ann, run)
    leak(ann, run, into=bob)
    isolation_audit().fix()
    assert SECRET in "".join(row.payload for row in Segment.objects.filter(user_id=ann.user_id))


@pytest.mark.parametrize("damage", ["lost", "changed", "swapped"])
def test_a_stream_that_is_not_whole_is_found(world, ann, damage):
    world.ended(ann)
    world.ended(ann)
    row = Segment.objects.order_by("first_seq")[1]
    match damage:
        case "lost":
            row.delete()
        case "changed":
            Segment.objects.filter(pk=row.pk).update(payload=row.payload.replace('"at":', '"at":1', 1))
        case "swapped":
            Stream.objects.update(tag="f" * 16)
    assert broken() == ["Streams are whole"]
    assert detail("Streams are whole").startswith(f"1 of 1 streams: user {ann.user_id}: ")


def test_a_ledger_that_names_another_user_than_its_run_is_found(world, ann, bob):
    run = world.queued(ann)
    RunLedger.objects.filter(pk=run.pk).update(user_id=bob.user_id)
    assert "Ledgers agree with runs" in broken()
    assert f"run {run.pk}" in detail("Ledgers agree with runs")


def test_a_run_in_another_users_thread_is_found(world, ann, bob):
    run = world.queued(ann, world.thread(bob))
    assert "Runs are in own threads" in broken()
    assert f"1 of 1 runs: run {run.pk}" in detail("Runs are in own threads")


def test_a_message_in_another_users_thread_is_found(world, ann, bob):
    Message.objects.create(thread_id=world.thread(bob), user_id=ann.user_id, message_id="m1", role="user")
    assert broken() == ["Messages are in own threads"]
    assert "message m1 in thread" in detail("Messages are in own threads")


def test_a_message_of_another_users_run_is_found(world, ann, bob):
    run = world.queued(bob)
    Message.objects.create(
        thread_id=world.thread(ann), user_id=ann.user_id, message_id="m1", run_id=run.pk, role="assistant"
    )
    assert broken() == ["Messages are in own threads"]


@pytest.mark.parametrize("field", ["run_id", "thread_id"])
def test_a_reply_that_names_another_users_thing_is_found(world, ann, bob, field):
    run = world.queued(bob)
    named = {"run_id": run.pk, "thread_id": run.thread_id}[field]
    CommandReceipt.objects.create(
        user_id=ann.user_id, command_id="c9", digest="d", reply=reply_ok("c9", {field: named})
    )
    assert broken() == ["Replies name own things"]
    assert f"command c9 of user {ann.user_id}" in detail("Replies name own things")


def test_a_refusal_and_a_command_that_is_at_work_name_nothing(ann):
    refused = reply_error("c1", Refusal(ErrorCode.NOT_FOUND, "there is no such run"))
    CommandReceipt.objects.create(user_id=ann.user_id, command_id="c1", digest="d", reply=refused)
    CommandReceipt.objects.create(user_id=ann.user_id, command_id="c2", digest="d", reply="")
    assert broken() == []


def test_what_was_deleted_since_is_no_finding(world, ann):
    run = world.ended(ann)
    CommandReceipt.objects.create(
        user_id=ann.user_id, command_id="c", digest="d", reply=reply_ok("c", {"run_id": "gone"})
    )
    Run.objects.filter(pk=run.pk).update(thread_id=new_id())
    RunLedger.objects.filter(pk=run.pk).update(thread_id=Run.objects.get(pk=run.pk).thread_id)
    assert broken() == []
