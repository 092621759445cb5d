"""The log is trimmed from its tail to its bounds, and never inside what somebody still needs."""

from datetime import timedelta

import pytest
from ag_ui.core import CustomEvent
from django.db import transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.operations.streams import chain_fault
from apps.realtime.cursor import judge_position
from apps.realtime.database import DatabaseThreads
from apps.realtime.erasing import begin_erasure
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.models import Erasure, HistoryMark, RunLedger, Segment, Stream, Turn
from apps.realtime.protocol import ResetReason
from apps.realtime.reader import PageRequest, PositionRequest, read_all
from apps.realtime.retention import (
    KeptRow,
    RetentionKeeper,
    RetentionLimits,
    overdue_streams,
    rows_due,
    rows_to_trim,
    trim_step,
)
from apps.realtime.values import LogEntry
from apps.vocabulary import Position, RunId, ThreadId, UserId, new_id

ANN, BOB = UserId(1), UserId(2)
NOW = timezone.now()
GENEROUS = RetentionLimits(rows=10_000, size=10**9, age_s=10**9)


def nobody(_user_id):
    return None


def say(user_id=ANN, rows=1):
    log = EventLog(LogLimits())
    for _ in range(rows):
        with transaction.atomic():
            log.append(user_id, [LogEntry(CustomEvent(name="said", value="x" * 20))])


def rows_of(user_id=ANN):
    return list(Segment.objects.filter(user_id=user_id).order_by("first_seq").values_list("first_seq", flat=True))


# -- which rows may go

kept_rows = st.lists(
    st.builds(
        KeptRow,
        last_seq=st.just(0),
        tag=st.just("t"),
        size=st.integers(1, 100),
        written_at=st.integers(0, 200).map(lambda age_s: NOW - timedelta(seconds=age_s)),
    ),
    max_size=12,
).map(lambda rows: [KeptRow(n, row.tag, row.size, row.written_at) for n, row in enumerate(rows, 1)])


@given(
    rows=kept_rows, most=st.integers(0, 12), size=st.integers(0, 600), age_s=st.integers(0, 200), floor=st.integers()
)
def test_what_is_left_is_within_the_bounds_or_needed_and_nothing_goes_without_a_reason(rows, most, size, age_s, floor):
    limits = RetentionLimits(rows=most, size=size, age_s=age_s)
    cutoff = NOW - timedelta(seconds=age_s)
    total = sum(row.size for row in rows)
    going = rows_to_trim(rows, len(rows), total, limits, NOW, floor)
    left, gone = rows[going:], rows[:going]

    def over(from_row):
        rest = rows[from_row:]
        return len(rest) > most or sum(row.size for row in rest) > size or rest[0].written_at < cutoff

    assert all(row.last_seq < floor for row in gone)
    assert all(over(number) for number in range(going))
    if left and over(going):
        assert left[0].last_seq >= floor


def test_a_leak_that_nobody_has_blanked_holds_the_tail():
    rows = [KeptRow(1, "t", 1, NOW), KeptRow(2, "t", 1, NOW, evidence=True), KeptRow(3, "t", 1, NOW)]
    assert rows_to_trim(rows, 3, 3, RetentionLimits(rows=0), NOW, 10) == 1


# -- what is stored


@pytest.mark.django_db
def test_the_tail_moves_with_its_tag_and_the_stream_stays_whole():
    say(rows=10)
    at_six = Segment.objects.get(first_seq=6)
    limits = RetentionLimits(rows=4, size=10**9, age_s=10**9)
    assert overdue_streams(limits, timezone.now(), UserId(0), 10) == [ANN]
    assert rows_due(ANN, limits, timezone.now(), nobody) == 6
    assert trim_step(ANN, limits, timezone.now(), nobody) == 6
    stream = Stream.objects.get(pk=ANN)
    assert (stream.tail, stream.tail_tag, stream.kept_rows) == (6, at_six.tag, 4)
    assert stream.kept_bytes == sum(Segment.objects.values_list("size", flat=True))
    assert stream.oldest_at == Segment.objects.get(first_seq=7).created_at
    assert rows_of() == [7, 8, 9, 10]
    assert chain_fault(ANN) is None
    assert overdue_streams(limits, timezone.now(), UserId(0), 10) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "limits",
    [
        RetentionLimits(rows=3, size=10**9, age_s=10**9),
        RetentionLimits(rows=10_000, size=500, age_s=10**9),
        RetentionLimits(rows=10_000, size=10**9, age_s=3_600),
    ],
    ids=["rows", "bytes", "age"],
)
def test_each_bound_alone_makes_a_stream_overdue_and_is_kept_after(limits):
    say(rows=8)
    say(BOB)
    Segment.objects.filter(user_id=ANN, first_seq__lt=6).update(created_at=NOW - timedelta(hours=2))
    Stream.objects.filter(pk=ANN).update(oldest_at=NOW - timedelta(hours=2))
    assert overdue_streams(limits, NOW, UserId(0), 10) == [ANN]
    assert 0 < trim_step(ANN, limits, NOW, nobody) < 8
    assert overdue_streams(limits, NOW, UserId(0), 10) == []
    assert rows_of(BOB) == [1]


@pytest.mark.django_db
def test_what_an_open_run_has_said_stays_and_so_does_what_a_snapshot_needs():
    limits = RetentionLimits(rows=1, size=10**9, age_s=10**9)
    say(rows=3)
    log, run_id = EventLog(LogLimits()), RunId(new_id())
    log.open_run(ANN, run_id, ThreadId(new_id()))
    say(rows=4)
    assert trim_step(ANN, limits, NOW, nobody) == 3
    assert trim_step(ANN, limits, NOW, nobody) == 0
    log.close_run(ANN, run_id)
    assert trim_step(ANN, limits, NOW, lambda _: 6) == 2
    assert rows_of() == [6, 7]
    assert trim_step(ANN, limits, NOW, nobody) == 1


@pytest.mark.django_db
def test_a_step_takes_no_more_rows_than_it_may():
    say(rows=10)
    limits = RetentionLimits(rows=1, step_rows=4)
    assert [trim_step(ANN, limits, NOW, nobody) for _ in range(4)] == [4, 4, 1, 0]


@pytest.mark.django_db
def test_a_position_before_the_tail_is_answered_trimmed_and_one_at_it_is_served():
    say(rows=5)
    old = Position(Stream.objects.get().epoch, 2, Segment.objects.get(first_seq=2).tag)
    at_tail = Position(old.epoch, 4, Segment.objects.get(first_seq=4).tag)
    trim_step(ANN, RetentionLimits(rows=1), NOW, nobody)
    requests = [PositionRequest(ANN, old), PositionRequest(ANN, at_tail), PageRequest(ANN, 2, 10, 10_000)]
    gone, served, page = read_all(requests).values()
    assert gone.reset is ResetReason.TRIMMED
    assert served.reset is None
    assert page.trimmed_head == Stream.objects.get().position
    head = Stream.objects.get().position
    assert judge_position(head, head, at_tail, head.tag) is None


@pytest.mark.django_db
def test_a_stream_that_is_trimmed_to_nothing_goes_on_where_it_was():
    say(rows=3)
    assert trim_step(ANN, RetentionLimits(rows=0), NOW, nobody) == 3
    stream = Stream.objects.get()
    assert (stream.tail, stream.tail_tag, stream.oldest_at) == (3, stream.tag, None)
    say()
    assert rows_of() == [4]
    assert Stream.objects.get().oldest_at is not None
    assert chain_fault(ANN) is None


# -- the keeper


def move_turns_back(seconds=3_600):
    Turn.objects.update(taken_at=timezone.now() - timedelta(seconds=seconds))


@pytest.mark.django_db(transaction=True)
async def test_of_all_processes_one_takes_each_turn_and_it_trims_erases_and_counts_a_beat():
    thread_id = ThreadId(new_id())
    async with DatabaseThreads(2) as database:
        keepers = [RetentionKeeper(database, RetentionLimits(rows=2, step_rows=2), nobody) for _ in range(3)]
        for user_id in (ANN, BOB):
            await database.call(say, user_id, 7)
        await database.call(begin_erasure, ANN, thread_id)
        await keepers[0].turn()  # makes the turn's row
        await database.call(move_turns_back)
        for keeper in keepers:
            await keeper.turn()
        assert [keeper.census()["turns_total"] for keeper in keepers] == [1, 0, 0]
        assert keepers[0].census()["rows_trimmed_total"] == 10
        assert await database.call(Erasure.objects.count) == 0
        assert (await database.call(HistoryMark.objects.all().current)).beat == 1


@pytest.mark.django_db(transaction=True)
async def test_a_turn_does_its_share_and_the_next_goes_on():
    async with DatabaseThreads(2) as database:
        limits = RetentionLimits(rows=0, step_rows=1, steps=3)
        keeper = RetentionKeeper(database, limits, nobody)
        for user_id in (ANN, BOB):
            await database.call(say, user_id, 3)
        await keeper.turn()
        left = []
        for _ in range(4):
            await database.call(move_turns_back)
            await keeper.turn()
            left.append(await database.call(Segment.objects.count))
        assert left[0] == 3
        assert left[-1] == 0


@pytest.mark.django_db
def test_a_turn_is_taken_once_in_its_time():
    turns = Turn.objects.all()
    assert not turns.take("sweep", 60)
    move_turns_back()
    assert turns.take("sweep", 60)
    assert not turns.take("sweep", 60)


@pytest.mark.django_db
def test_a_ledger_that_was_closed_holds_nothing_back():
    say(rows=2)
    RunLedger.objects.create(run_id="r", user_id=ANN, thread_id="t", first_seq=1, is_open=False)
    assert rows_due(ANN, RetentionLimits(rows=0), NOW, nobody) == 2
    assert rows_due(BOB, RetentionLimits(rows=0), NOW, nobody) == 0
    assert rows_due(ANN, GENEROUS, NOW, nobody) == 0
