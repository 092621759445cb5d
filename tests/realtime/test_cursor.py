"""The cursor against a five-line model of a tab and a log: whatever happens, a tab sees a prefix, once, in order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apps.realtime.cursor import (
    CheckPosition,
    CursorState,
    DeliveryCursor,
    ReadLog,
    SendEvents,
    SendReset,
    judge_position,
)
from apps.realtime.protocol import ProtocolViolation, ResetReason
from apps.realtime.values import Page
from apps.vocabulary import Position, UserId

EPOCH, TAG = "a" * 16, "b" * 16
WINDOW_EVENTS, WINDOW_BYTES, SEGMENT_EVENTS, SEGMENT_BYTES = 12, 120, 4, 40


def position(seq: int) -> Position:
    return Position(EPOCH, seq, TAG)


def page(first: int, last: int, size: int = 10) -> Page:
    return Page(UserId(1), first, position(last), ",".join(str(n) for n in range(first, last + 1)), size)


def new_cursor() -> DeliveryCursor:
    return DeliveryCursor(
        window_events=WINDOW_EVENTS,
        window_bytes=WINDOW_BYTES,
        segment_events=SEGMENT_EVENTS,
        segment_bytes=SEGMENT_BYTES,
    )


def live_cursor(at: int = 0) -> DeliveryCursor:
    cursor = new_cursor()
    assert cursor.subscribed(None) == [CheckPosition(None)]
    assert cursor.positioned(position(at), at) == []
    return cursor


class DeliveryMachine(RuleBasedStateMachine):
    """One log, one tab that reconnects, and a network that loses, doubles and delays hints."""

    def __init__(self) -> None:
        super().__init__()
        self.segments: list[tuple[int, int, int]] = []  # first, last, size
        self.head = 0
        self.seen: list[int] = []
        self.acked = 0
        self.connect()

    def connect(self) -> None:
        """The tab comes (back) with its last position; the cursor is new, whatever the old one knew."""
        self.cursor = new_cursor()
        self.asked: list[ReadLog] = []
        applied = self.seen[-1] if self.seen else 0
        self.acked = applied
        self.perform(self.cursor.subscribed(position(applied)))
        self.perform(self.cursor.positioned(position(applied), self.head))

    def perform(self, actions: list) -> None:
        for action in actions:
            match action:
                case SendEvents(sent):
                    self.seen += list(range(sent.first, sent.position.seq + 1))
                case ReadLog():
                    self.asked.append(action)
                case SendReset():
                    raise AssertionError("nothing was trimmed")

    @rule(events=st.integers(1, SEGMENT_EVENTS), size=st.integers(1, SEGMENT_BYTES), told=st.booleans())
    def commit(self, events: int, size: int, told: bool) -> None:
        first, self.head = self.head + 1, self.head + events
        self.segments.append((first, self.head, size))
        if told:
            self.perform(self.cursor.committed(page(first, self.head, size)))

    @rule(size=st.integers(WINDOW_BYTES, WINDOW_BYTES * 3))
    def commit_one_event_larger_than_the_window(self, size: int) -> None:
        self.head += 1
        self.segments.append((self.head, self.head, size))

    @rule(seq=st.integers(0, 200))
    def hint_late_doubled_or_reordered(self, seq: int) -> None:
        self.perform(self.cursor.hinted(min(seq, self.head)))

    @rule(ahead=st.integers(1, 5))
    def hint_ahead_of_a_lagging_replica(self, ahead: int) -> None:
        self.perform(self.cursor.hinted(self.head + ahead))

    @precondition(lambda self: self.asked)
    @rule()
    def answer_read(self) -> None:
        request = self.asked.pop()
        taken: list[tuple[int, int, int]] = []
        for segment in self.segments:
            if segment[0] > request.after:
                events = segment[1] - request.after
                size = sum(other[2] for other in taken) + segment[2]
                if taken and (events > request.max_events or size > request.max_bytes):
                    break
                taken.append(segment)
        answer = page(taken[0][0], taken[-1][1], sum(other[2] for other in taken)) if taken else None
        self.perform(self.cursor.read_page(answer))

    @precondition(lambda self: self.seen and self.acked < self.seen[-1])
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        self.acked = data.draw(st.integers(self.acked, self.seen[-1]))
        self.perform(self.cursor.acknowledged(self.acked))

    @rule()
    def drop_the_socket(self) -> None:
        self.connect()

    @invariant()
    def the_tab_has_seen_a_prefix_once_and_in_order(self) -> None:
        assert self.seen == list(range(1, len(self.seen) + 1))
        assert len(self.seen) <= self.head

    @invariant()
    def the_window_bounds_what_is_under_way(self) -> None:
        events, size = self.cursor.outstanding
        assert events <= max(WINDOW_EVENTS, 1)
        sent_alone = len(self.cursor._outstanding) == 1
        assert size <= WINDOW_BYTES or sent_alone

    @invariant()
    def at_most_one_read_is_open(self) -> None:
        assert len(self.asked) == (self.cursor.state is CursorState.READING)

    def teardown(self) -> None:
        """After one last hint, acks and reads, everything has arrived: nothing is ever stuck."""
        self.perform(self.cursor.hinted(self.head))
        for _ in range(4 * len(self.segments) + 4):
            if self.asked:
                self.answer_read()
            if self.seen and self.acked < self.seen[-1]:
                self.acked = self.seen[-1]
                self.perform(self.cursor.acknowledged(self.acked))
        if self.cursor.head < self.head or self.cursor.sent < self.head:
            self.perform(self.cursor.hinted(self.head))
            if self.asked:
                self.answer_read()
        assert self.seen == list(range(1, self.head + 1))


DeliveryMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDelivery = DeliveryMachine.TestCase


def test_a_page_that_continues_is_sent_straight_on() -> None:
    cursor = live_cursor(at=7)
    assert cursor.committed(page(8, 9)) == [SendEvents(page(8, 9))]


def test_a_page_after_a_gap_is_read_from_the_log_instead() -> None:
    cursor = live_cursor()
    assert cursor.committed(page(3, 4)) == [ReadLog(0, WINDOW_EVENTS, WINDOW_BYTES)]


def test_a_page_that_was_sent_already_is_not_sent_again() -> None:
    cursor = live_cursor()
    cursor.committed(page(1, 2))
    assert cursor.committed(page(1, 2)) == []


def test_a_full_window_blocks_until_an_ack_makes_room() -> None:
    cursor = live_cursor()
    for first in range(1, WINDOW_EVENTS, SEGMENT_EVENTS):
        cursor.committed(page(first, first + SEGMENT_EVENTS - 1))
    assert cursor.committed(page(WINDOW_EVENTS + 1, WINDOW_EVENTS + 1)) == []
    assert cursor.state is CursorState.BLOCKED
    assert cursor.acknowledged(SEGMENT_EVENTS) == [ReadLog(WINDOW_EVENTS, SEGMENT_EVENTS, WINDOW_BYTES - 20)]


def test_an_ack_of_what_was_never_sent_is_refused_and_changes_nothing() -> None:
    cursor = live_cursor()
    cursor.committed(page(1, 2))
    before = repr(cursor)
    with pytest.raises(ProtocolViolation, match="ack of 3"):
        cursor.acknowledged(3)
    assert repr(cursor) == before


def test_an_older_ack_changes_nothing() -> None:
    cursor = live_cursor()
    cursor.committed(page(1, 2))
    cursor.acknowledged(2)
    assert cursor.acknowledged(1) == []
    assert cursor.acked == 2


def test_a_second_subscribe_is_refused_unless_a_reset_came_before() -> None:
    cursor = new_cursor()
    cursor.subscribed(position(5))
    with pytest.raises(ProtocolViolation):
        cursor.subscribed(None)
    assert cursor.refused(ResetReason.AHEAD, position(3)) == [SendReset(ResetReason.AHEAD, position(3))]
    assert cursor.committed(page(4, 4)) == []
    assert cursor.acknowledged(99) == []
    assert cursor.subscribed(position(3)) == [CheckPosition(position(3))]


def test_a_commit_seen_while_the_position_was_checked_is_not_missed() -> None:
    cursor = new_cursor()
    cursor.subscribed(None)
    cursor.committed(page(4, 5))
    assert cursor.positioned(position(3), 3) == [ReadLog(3, WINDOW_EVENTS, WINDOW_BYTES)]


@pytest.mark.parametrize(
    ("after", "tag_at_after", "reason"),
    [
        (Position("c" * 16, 5, TAG), TAG, ResetReason.EPOCH_CHANGED),
        (Position(EPOCH, 11, TAG), None, ResetReason.AHEAD),
        (Position(EPOCH, 1, TAG), TAG, ResetReason.TRIMMED),
        (Position(EPOCH, 5, "f" * 16), TAG, ResetReason.FORKED),
        (Position(EPOCH, 5, TAG), None, ResetReason.FORKED),
        (Position(EPOCH, 5, TAG), TAG, None),
        (Position(EPOCH, 2, TAG), TAG, None),
        (Position(EPOCH, 10, TAG), TAG, None),
    ],
)
def test_a_position_is_served_only_from_the_history_it_belongs_to(after, tag_at_after, reason) -> None:
    assert judge_position(after, position(10), position(2), tag_at_after) == reason


def test_a_commit_larger_than_the_window_is_read_in_parts_that_it_holds() -> None:
    cursor = live_cursor()
    assert cursor.committed(page(1, 5, WINDOW_BYTES + 1)) == [ReadLog(0, WINDOW_EVENTS, WINDOW_BYTES)]
    cursor = live_cursor()
    assert cursor.committed(page(1, WINDOW_EVENTS + 1)) == [ReadLog(0, WINDOW_EVENTS, WINDOW_BYTES)]
    cursor = live_cursor()
    assert cursor.committed(page(1, 1, WINDOW_BYTES + 1)) == [SendEvents(page(1, 1, WINDOW_BYTES + 1))]
