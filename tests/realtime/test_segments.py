"""Entries become rows without a gap, within the bounds, under a checksum that names their history."""

import json

from hypothesis import given
from hypothesis import strategies as st

from apps.realtime.segments import SegmentLimits, cut_segments, next_tag

ENTRIES = st.lists(
    st.text(max_size=60).map(lambda text: f'"event":{json.dumps(text, ensure_ascii=False)}'), max_size=50
)


@given(ENTRIES, st.integers(0, 1000), st.integers(1, 8), st.integers(20, 400))
def test_segments_are_contiguous_ordered_and_within_their_bounds(entries, head, events, size):
    segments = list(cut_segments(entries, head, "0" * 16, SegmentLimits(events, size)))
    stored = [entry for segment in segments for entry in json.loads(segment.payload)]
    assert [entry["seq"] for entry in stored] == list(range(head + 1, head + 1 + len(entries)))
    assert [f'"event":{json.dumps(entry["event"], ensure_ascii=False)}' for entry in stored] == entries
    for segment in segments:
        count = segment.last_seq - segment.first_seq + 1
        assert count <= events
        assert segment.size == len(segment.payload.encode())
        assert segment.size <= size or count == 1, "only an event that is larger than a segment stands alone"


@given(ENTRIES.filter(bool), st.integers(0, 9))
def test_two_histories_that_differ_anywhere_have_different_tags(entries, place):
    changed = list(entries)
    place %= len(changed)
    changed[place] = changed[place][:-1] + "x" + changed[place][-1]
    limits = SegmentLimits(4, 10_000)
    one = list(cut_segments(entries, 0, "0" * 16, limits))[-1].tag
    other = list(cut_segments(changed, 0, "0" * 16, limits))[-1].tag
    assert one != other
    assert len(one) == 16


def test_the_tag_depends_on_all_that_came_before():
    assert next_tag("0" * 16, "x") != next_tag("1" * 16, "x")
