"""What is read is whole, contiguous, and from the history that the position belongs to."""

import asyncio

import pytest
from ag_ui.core import CustomEvent
from django.db import transaction

from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.models import Segment, Stream
from apps.realtime.reader import PageReader, PageRequest, PositionRequest, read_all
from apps.realtime.segments import SegmentLimits, next_tag
from apps.realtime.values import LogEntry
from apps.vocabulary import Position, UserId

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_tag_chain_names_a_history_and_positions_stand_at_segment_ends():
    log = EventLog(LogLimits(segment=SegmentLimits(events=2)))
    with transaction.atomic():
        log.append(UserId(1), [LogEntry(CustomEvent(name="n", value=n)) for n in range(5)])
    tag = "0" * 16
    ends = []
    for row in Segment.objects.order_by("first_seq"):
        tag = next_tag(tag, row.payload)
        assert row.tag == tag
        ends.append((row.last_seq, tag))
    assert [end for end, _ in ends] == [2, 4, 5]
    epoch = Stream.objects.get(user_id=1).epoch

    def verdict(seq, tag):
        request = PositionRequest(UserId(1), Position(epoch, seq, tag))
        return read_all([request])[request].reset

    assert [verdict(*end) for end in [(0, "0" * 16), *ends]] == [None] * 4
    assert verdict(3, ends[0][1]) == "forked"
    assert verdict(4, ends[0][1]) == "forked"
    assert verdict(6, ends[0][1]) == "ahead"


def test_a_page_is_whole_segments_within_the_bound_and_at_least_one():
    log = EventLog(LogLimits(segment=SegmentLimits(events=2)))
    with transaction.atomic():
        log.append(UserId(1), [LogEntry(CustomEvent(name="n", value=n)) for n in range(5)])

    def read(after, events, size):
        request = PageRequest(UserId(1), after, events, size)
        page = read_all([request])[request].page
        return None if page is None else (page.first, page.position.seq)

    assert read(0, 100, 100_000) == (1, 5)
    assert read(0, 4, 100_000) == (1, 4)
    assert read(0, 3, 100_000) == (1, 2)
    assert read(0, 1, 1) == (1, 2)
    assert read(4, 100, 100_000) == (5, 5)
    assert read(5, 100, 100_000) is None


def test_a_page_never_leads_over_a_hole_in_the_log():
    log = EventLog(LogLimits(segment=SegmentLimits(events=2)))
    with transaction.atomic():
        log.append(UserId(1), [LogEntry(CustomEvent(name="n", value=n)) for n in range(6)])
    Segment.objects.filter(first_seq=3).delete()
    before, after = PageRequest(UserId(1), 0, 100, 100_000), PageRequest(UserId(1), 2, 100, 100_000)
    answers = read_all([before, after])
    assert answers[before].page.position.seq == 2
    assert answers[after].page is None


async def test_a_request_that_cannot_be_answered_keeps_nobody_else_from_their_pages(caplog):
    async with DatabaseThreads(1) as database, PageReader(database) as reader:
        answers = []
        done = asyncio.Event()

        def answered(answer):
            answers.append(answer)
            done.set()

        reader.ask(PageRequest(UserId(1), 0, -1, 10), answered)  # no page has fewer than no events
        reader.ask(PositionRequest(UserId(2), None), answered)
        await asyncio.wait_for(done.wait(), 10)
    assert [answer.position.seq for answer in answers] == [0]
    assert "cannot be answered" in caplog.text
