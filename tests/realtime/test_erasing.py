"""A deleted thread's events lose their content, step by step, whoever takes the steps; the history stays whole."""

import itertools

import orjson
import pytest
from ag_ui.core import CustomEvent
from django.db.models import Sum
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from apps.operations.streams import chain_fault
from apps.realtime.erasing import begin_erasure, blank_segments, erase_step
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.models import Erasure, Segment, Stream
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import LogEntry
from apps.vocabulary import RunId, ThreadId, UserId, new_id

ANN = UserId(1)
DELETED, KEPT = ThreadId(new_id()), ThreadId(new_id())


def log() -> EventLog:
    return EventLog(LogLimits(segment=SegmentLimits(events=2)))


def say(thread_id: ThreadId, *words: str) -> None:
    log().append(ANN, [LogEntry(CustomEvent(name="said", value=word), thread_id) for word in words])


def contents() -> str:
    rows = Segment.objects.filter(user_id=ANN).order_by("first_seq")
    return " ".join(rows.values_list("payload", flat=True))


def counted() -> tuple[int, int]:
    stream = Stream.objects.get(pk=ANN)
    return stream.kept_rows, stream.kept_bytes


def stored() -> tuple[int, int]:
    rows = Segment.objects.filter(user_id=ANN)
    return rows.count(), rows.aggregate(size=Sum("size"))["size"] or 0


class Steps(TestCase):
    @settings(max_examples=40, deadline=None)
    @given(
        words=st.lists(st.sampled_from([DELETED, KEPT]), max_size=20),
        rows=st.integers(1, 5),
        late=st.lists(st.sampled_from([DELETED, KEPT]), max_size=4),
    )
    def test_any_number_of_steps_of_any_size_takes_the_thread_and_nothing_else(self, words, rows, late):
        numbers = itertools.count()
        for thread_id in words:
            say(thread_id, f"{'gone' if thread_id == DELETED else 'here'}-{next(numbers)}")
        before = contents().count("here-")
        run_id = RunId(new_id())
        log().open_run(ANN, run_id, DELETED)
        begin_erasure(ANN, DELETED)
        while erase_step(ANN, DELETED, rows):
            pass
        assert Erasure.objects.exists(), "it waits for the run of the thread, which may still say something"
        for thread_id in late:
            say(thread_id, f"{'gone' if thread_id == DELETED else 'here'}-{next(numbers)}")
        log().close_run(ANN, run_id)
        while erase_step(ANN, DELETED, rows):
            pass
        assert not Erasure.objects.exists()
        assert "gone-" not in contents()
        assert contents().count("here-") == before + late.count(KEPT)
        assert chain_fault(ANN) is None
        if words or late:
            assert counted() == stored()


@pytest.mark.django_db
def test_a_step_looks_at_no_more_rows_than_it_is_told():
    for word in range(6):
        say(DELETED, f"gone-{word}")
    begin_erasure(ANN, DELETED)
    assert erase_step(ANN, DELETED, 2)
    assert contents().count("gone-") == 4
    assert Erasure.objects.get().next_seq == 3


@pytest.mark.django_db
def test_an_erasure_that_was_begun_twice_begins_at_the_tail_again():
    say(DELETED, "gone-1")
    begin_erasure(ANN, DELETED)
    begin_erasure(ANN, DELETED)
    assert Erasure.objects.get().next_seq == 1
    assert not erase_step(ANN, DELETED, 10)
    assert not erase_step(ANN, DELETED, 10), "a step of what is done changes nothing"


@pytest.mark.django_db
def test_a_stranger_keeps_not_even_the_ids_of_what_was_leaked_to_them():
    say(DELETED, "leaked")
    Segment.objects.update(leaked_from=7)
    assert blank_segments(Segment.objects.values_list("pk", flat=True)) == 1
    (entry,) = orjson.loads(Segment.objects.get().payload)
    assert (entry["thread_id"], entry["run_id"]) == (None, None)
    assert counted() == stored()
