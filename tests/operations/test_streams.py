"""A stream is whole, or the audit names the place where it is not."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.operations.streams import Ends, Link, chain_fault, first_fault
from apps.realtime.erasing import REMOVED
from apps.realtime.models import GENESIS_TAG, Segment, Stream
from apps.realtime.segments import SegmentLimits, cut_segments

EPOCH = "00000000000000aa"


def entry(text):
    event = f'{{"type":"TEXT_MESSAGE_CONTENT","delta":"{text}"}}'
    return f'"thread_id":null,"run_id":null,"at":1.0,"event":{event}'


def chain(count, per_row=2):
    """The links and ends of a stream of `count` events."""
    rows = cut_segments([entry(f"e{i}") for i in range(count)], 0, GENESIS_TAG, SegmentLimits(events=per_row))
    links = [Link(row.first_seq, row.last_seq, row.payload, row.tag) for row in rows]
    tag = links[-1].tag if links else GENESIS_TAG
    return Ends(EPOCH, 0, GENESIS_TAG, count, tag), links


@given(count=st.integers(0, 30), per_row=st.integers(1, 5))
def test_a_stream_as_the_log_writes_it_is_whole(count, per_row):
    assert first_fault(*chain(count, per_row)) is None


@given(count=st.integers(2, 30), per_row=st.integers(1, 5), trimmed=st.integers(1, 10))
def test_a_stream_whose_beginning_was_trimmed_is_whole(count, per_row, trimmed):
    ends, links = chain(count, per_row)
    gone = links[: min(trimmed, len(links) - 1)]
    if gone:
        ends = replace(ends, tail=gone[-1].last_seq, tail_tag=gone[-1].tag)
    assert first_fault(ends, links[len(gone) :]) is None


@given(data=st.data())
def test_no_single_row_can_be_lost_changed_or_doubled_unseen(data):
    ends, links = chain(data.draw(st.integers(3, 30)), per_row=2)
    place = data.draw(st.integers(0, len(links) - 1))
    change = data.draw(st.sampled_from(["lost", "changed", "doubled", "tag"]))
    link = links[place]
    replacement = {
        "lost": [],
        "changed": [replace(link, payload=link.payload.replace("delta", "datle"))],
        "doubled": [link, link],
        "tag": [replace(link, tag="f" * 16)],
    }[change]
    assert first_fault(ends, [*links[:place], *replacement, *links[place + 1 :]]) is not None


def test_the_fault_says_where_the_chain_breaks():
    ends, links = chain(6)
    assert first_fault(ends, [links[0], links[2]]) == "seq 3 is missing or doubled"
    assert first_fault(ends, links[:2]) == "seq 5 to 6 are missing"
    assert first_fault(replace(ends, tag="f" * 16), links) == "the checksum at the head is another one"


def test_a_row_that_holds_other_events_than_it_says_is_a_fault_even_with_a_right_checksum():
    rows = list(cut_segments([entry("a"), entry("b")], 5, GENESIS_TAG, SegmentLimits()))
    link = Link(1, 2, rows[0].payload, rows[0].tag)
    ends = Ends(EPOCH, 0, GENESIS_TAG, 2, link.tag)
    assert first_fault(ends, [link]) == "the row at seq 1 holds other events than it says"


def test_a_blanked_row_keeps_its_tag_and_the_chain_goes_on_behind_it():
    ends, links = chain(6)
    removed = orjson.dumps(REMOVED).decode()
    payload = ",".join(f'{{"seq":{seq},"thread_id":null,"run_id":null,"at":1.0,"event":{removed}}}' for seq in (3, 4))
    blanked = replace(links[1], payload=f"[{payload}]")
    assert first_fault(ends, [links[0], blanked, links[2]]) is None


@pytest.mark.django_db
def test_what_is_stored_is_judged_and_a_user_without_a_stream_has_no_fault():
    ends, links = chain(6)
    Stream.objects.create(user_id=7, epoch=EPOCH, head=ends.head, tag=ends.tag)
    for link in links:
        Segment.objects.create(
            user_id=7,
            first_seq=link.first_seq,
            last_seq=link.last_seq,
            payload=link.payload,
            size=len(link.payload),
            tag=link.tag,
            created_at="2026-01-01T00:00:00Z",
        )
    assert chain_fault(7) is None
    Segment.objects.filter(first_seq=3).delete()
    assert chain_fault(7) == "seq 3 is missing or doubled"
    assert chain_fault(8) is None
