"""Merged deltas say the same, in the very words that AG-UI's own package would have used."""

import json

from ag_ui.core import ReasoningMessageContentEvent, TextMessageContentEvent, ToolCallArgsEvent
from hypothesis import given
from hypothesis import strategies as st

from apps.realtime.coalescing import (
    ENVELOPE_BYTES,
    PIECE_CHARACTERS,
    WaitingDelta,
    encode_entry,
    piece_characters,
    split_delta,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.lists(TEXT, min_size=1))
def test_joined_deltas_are_byte_for_byte_what_came_in(pieces):
    delta = WaitingDelta("TEXT_MESSAGE_CONTENT", "m", None, 1.0)
    for piece in pieces:
        delta.add(piece)
    entry = json.loads("{" + encode_entry("t", "r", 1.0, delta.event()) + "}")
    assert entry["event"]["delta"] == "".join(pieces)


@given(TEXT, st.none() | st.just("sub"))
def test_an_event_is_exactly_as_the_ag_ui_package_serialises_it(text, subagent):
    for kind, package in (
        ("TEXT_MESSAGE_CONTENT", TextMessageContentEvent(message_id="m", delta=text, subagent_run_id=subagent)),
        (
            "REASONING_MESSAGE_CONTENT",
            ReasoningMessageContentEvent(message_id="m", delta=text, subagent_run_id=subagent),
        ),
        ("TOOL_CALL_ARGS", ToolCallArgsEvent(tool_call_id="m", delta=text, subagent_run_id=subagent)),
    ):
        delta = WaitingDelta(kind, "m", subagent, 1.0)
        delta.add(text)
        assert delta.event() == json.loads(package.model_dump_json(by_alias=True))


@given(st.integers(0, 3 * PIECE_CHARACTERS + 1))
def test_a_long_delta_is_split_into_events_that_fit_and_loses_nothing(length):
    text = "\x1f" * length
    pieces = list(split_delta(text, PIECE_CHARACTERS))
    assert "".join(pieces) == text
    assert all(len(json.dumps(piece)) < 65_536 - 1_000 for piece in pieces)


def test_only_deltas_of_one_construct_are_merged_and_only_up_to_an_events_size():
    delta = WaitingDelta("TEXT_MESSAGE_CONTENT", "m", None, 1.0)
    delta.add("x" * (PIECE_CHARACTERS - 1))
    assert delta.takes("TEXT_MESSAGE_CONTENT", "m", None, 1, PIECE_CHARACTERS)
    assert not delta.takes("TEXT_MESSAGE_CONTENT", "m", None, 2, PIECE_CHARACTERS)
    assert not delta.takes("TEXT_MESSAGE_CONTENT", "other", None, 1, PIECE_CHARACTERS)
    assert not delta.takes("REASONING_MESSAGE_CONTENT", "m", None, 1, PIECE_CHARACTERS)
    assert not delta.takes("TEXT_MESSAGE_CONTENT", "m", "sub", 1, PIECE_CHARACTERS)


@given(st.integers(4_096, 200_000), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5))
def test_a_piece_fits_into_an_event_whatever_its_size_and_its_characters(event_bytes, alphabet):
    most = piece_characters(event_bytes)
    longest_id = "\x1f" * 128
    delta = WaitingDelta("TEXT_MESSAGE_CONTENT", longest_id, longest_id, 1_790_000_000.123456)
    delta.add((alphabet * most)[:most])
    entry = encode_entry("t" * 36, "r" * 36, delta.at, delta.event())
    assert len(entry.encode()) <= event_bytes
    assert event_bytes > ENVELOPE_BYTES


def test_empty_pieces_are_not_kept_so_that_a_million_of_them_hold_no_memory():
    delta = WaitingDelta("TEXT_MESSAGE_CONTENT", "m", None, 1.0)
    for piece in ("", "a", "", ""):
        delta.add(piece)
    assert delta.pieces == ["a"]
    assert delta.event()["delta"] == "a"
