"""What is read is whole, contiguous, and from the history that the position belongs to."""

import asyncio

import pytest
from ag_ui.core import CustomEvent
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.models import Segment, Stream
from apps.realtime.reader import PageReader, PageRequest, PositionRequest, Unreadable, read_all
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

        reader.ask(PageRequest(UserId(1), 0, None, 10), answered)  # type: ignore[arg-type]  # what is a defect
        reader.ask(PositionRequest(UserId(2), None), answered)
        await asyncio.wait_for(done.wait(), 10)
    assert [answer.position.seq for answer in answers] == [0]
    assert "cannot be answered" in caplog.text


@settings(max_examples=40)
@given(
    appends=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), max_size=12),
    asked=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 12), st.integers(1, 20), st.integers(1, 2_000)),
        min_size=1,
        max_size=8,
    ),
)
def test_many_requests_are_answered_as_each_by_itself_would_be(appends, asked):
    Segment.objects.all().delete()
    Stream.objects.all().delete()
    log = EventLog(LogLimits(segment=SegmentLimits(events=3)))
    for user, events in appends:
        with transaction.atomic():
            log.append(UserId(user), [LogEntry(CustomEvent(name="n", value=n)) for n in range(events)])
    requests = [PageRequest(UserId(user), after, events, size) for user, after, events, size in asked]
    together = read_all(requests)
    for request in requests:
        shared = [other for other in requests if (other.user_id, other.after) == (request.user_id, request.after)]
        least = PageRequest(
            request.user_id,
            request.after,
            min(other.max_events for other in shared),
            min(other.max_bytes for other in shared),
        )
        assert together[request] == read_all([least])[least]
        assert all(together[other].page is together[request].page for other in shared), "one page for all tabs"
        if (page := together[request].page) is not None:
            assert page.first == request.after + 1
            assert page.events.count('"seq":') == page.count


def test_tabs_at_one_place_share_the_page_that_the_least_of_them_takes():
    log = EventLog(LogLimits(segment=SegmentLimits(events=2)))
    with transaction.atomic():
        log.append(UserId(1), [LogEntry(CustomEvent(name="n", value=n)) for n in range(8)])
    least, most, smallest = (PageRequest(UserId(1), 0, *room) for room in ((4, 9_000), (8, 9_000), (8, 300)))
    for requests in ([least, most], [most, least]):
        assert {answer.page.position.seq for answer in read_all(requests).values()} == {4}
    assert read_all([most])[most].page.position.seq == 8
    assert read_all([most, smallest])[most].page.position.seq == read_all([smallest])[smallest].page.position.seq < 8


def test_a_reconnect_storm_costs_three_queries_a_batch():
    log = EventLog(LogLimits())
    for user in range(1, 41):
        with transaction.atomic():
            log.append(UserId(user), [LogEntry(CustomEvent(name="n", value=user))])
    requests = [PageRequest(UserId(user), 0, 100 + tab, 100_000) for user in range(1, 41) for tab in range(3)]
    with CaptureQueriesContext(connection) as queries:
        answers = read_all(requests)
    assert len(queries) == 3
    assert {answers[request].page.position.seq for request in requests} == {1}
    assert all(f'"value":{request.user_id}}}' in answers[request].page.events for request in requests)


def test_a_question_that_the_database_refuses_is_not_taken_for_an_outage():
    def refuse(execute, sql, params, many, context):
        asked = "realtime_segment" in sql
        return execute("SELECT * FROM there_is_no_such_table" if asked else sql, () if asked else params, many, context)

    with connection.execute_wrapper(refuse), pytest.raises(Unreadable):
        read_all([PageRequest(UserId(1), 0, 10, 10)])
