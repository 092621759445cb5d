"""The traced cursor decides what any other does, and remembers the last steps of events, bounded."""

from hypothesis import given
from hypothesis import strategies as st

from apps.realtime.cursor import DeliveryCursor
from apps.realtime.tracing import DeliveryTrace, Mark, TracedCursor
from apps.vocabulary import ConnectionId, UserId
from tests.realtime.test_cursor import SEGMENT_BYTES, SEGMENT_EVENTS, WINDOW_BYTES, WINDOW_EVENTS, page, position

ANN, TAB = UserId(1), ConnectionId("tab")
BOUNDS = {
    "window_events": WINDOW_EVENTS,
    "window_bytes": WINDOW_BYTES,
    "segment_events": SEGMENT_EVENTS,
    "segment_bytes": SEGMENT_BYTES,
}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def live(trace):
    cursor = TracedCursor(trace, ANN, TAB, **BOUNDS)
    cursor.subscribed(None)
    cursor.positioned(position(0), 0)
    return cursor


def test_a_walk_is_hinted_sent_acked_in_its_order():
    trace = DeliveryTrace(100, Clock())
    cursor = live(trace)
    cursor.committed(page(1, 3))
    cursor.hinted(5)
    cursor.read_page(page(4, 5))
    cursor.acknowledged(2)
    cursor.acknowledged(5)
    assert [mark.step for mark in trace.find(ANN, 2)] == ["hinted", "sent", "acked"]
    assert trace.find(ANN, 5) == [Mark("hinted", 4.0, TAB), Mark("sent", 5.0, TAB), Mark("acked", 7.0, TAB)]
    assert trace.find(UserId(2), 5) == []
    assert trace.known_since == 1.0


def test_what_falls_out_of_the_ring_is_no_longer_known_and_that_is_said():
    trace = DeliveryTrace(3, Clock())
    cursor = live(trace)
    for seq in range(1, 5):
        cursor.committed(page(seq, seq))
        cursor.acknowledged(seq)
    assert trace.find(ANN, 1) == []
    assert [mark.step for mark in trace.find(ANN, 4)] == ["hinted", "sent", "acked"]
    assert trace.known_since == trace.find(ANN, 4)[0].at


def test_a_tab_that_comes_back_is_not_said_to_have_heard_of_all_its_past():
    trace = DeliveryTrace(100)
    cursor = TracedCursor(trace, ANN, TAB, **BOUNDS)
    cursor.hinted(900)
    cursor.subscribed(position(899))
    cursor.committed(page(901, 901))
    assert trace.find(ANN, 5) == []


inputs = st.lists(st.tuples(st.sampled_from(["hinted", "acknowledged", "read"]), st.integers(0, 30)), max_size=30)


@given(inputs=inputs)
def test_it_decides_what_any_other_cursor_decides(inputs):
    traced, plain = live(DeliveryTrace(5)), DeliveryCursor(**BOUNDS)
    plain.subscribed(None)
    plain.positioned(position(0), 0)
    for name, number in inputs:
        outcomes = []
        for cursor in (traced, plain):
            try:
                argument = page(cursor.sent + 1, cursor.sent + 1 + number % 4) if name == "read" else number
                outcomes.append(getattr(cursor, "read_page" if name == "read" else name)(argument))
            except Exception as error:  # noqa: BLE001 - whatever it is, the other must raise it too
                outcomes.append(repr(error))
        assert outcomes[0] == outcomes[1]
        assert repr(traced)[14:] == repr(plain)[14:]
