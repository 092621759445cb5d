"""What may come next in a run, and what must be closed before its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.realtime.constructs import GrammarError, OpenConstructs

IDS = st.sampled_from(["a", "b"])
EVENTS = st.one_of(
    st.builds(
        lambda kind, key: {"type": kind, "messageId": key},
        st.sampled_from(
            [
                "TEXT_MESSAGE_START",
                "TEXT_MESSAGE_CONTENT",
                "TEXT_MESSAGE_END",
                "REASONING_START",
                "REASONING_MESSAGE_START",
                "REASONING_MESSAGE_CONTENT",
                "REASONING_MESSAGE_END",
                "REASONING_END",
            ]
        ),
        IDS,
    ),
    st.builds(
        lambda kind, key: {"type": kind, "toolCallId": key, "messageId": "r"},
        st.sampled_from(["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]),
        IDS,
    ),
    st.builds(
        lambda kind, key: {"type": kind, "subagentRunId": key, "name": "n"},
        st.sampled_from(["SUBAGENT_STARTED", "SUBAGENT_FINISHED", "SUBAGENT_ERROR"]),
        IDS,
    ),
    st.builds(
        lambda kind, key: {"type": kind, "stepName": key},
        st.sampled_from(["STEP_STARTED", "STEP_FINISHED"]),
        IDS,
    ),
    st.just({"type": "RUN_STARTED"}),
    st.just({"type": "CUSTOM", "name": "n", "value": 1}),
    st.just({"type": "NONSENSE"}),
)


def accepted(events):
    """The events that a run may log, and what they leave open."""
    constructs, taken = OpenConstructs(), []
    for event in events:
        size = len(constructs)
        try:
            constructs.see(event)
        except GrammarError:
            assert len(constructs) == size, "a refused event changes nothing"
        else:
            taken.append(event)
    return constructs, taken


@given(st.lists(EVENTS, max_size=40))
def test_closing_events_leave_nothing_open_whatever_came_before(events):
    constructs, _ = accepted(events)
    for event in constructs.closing_events("over"):
        constructs.see(event.model_dump(mode="json", by_alias=True))
    assert len(constructs) == 0
    constructs.see({"type": "RUN_ERROR", "message": "m"})


@given(st.lists(EVENTS, max_size=40))
def test_a_log_with_holes_is_followed_to_its_end_and_what_is_open_can_be_closed(events):
    constructs = OpenConstructs()
    for event in events:
        constructs.follow(event)
    assert len(constructs) == len(accepted(events)[0])
    for event in constructs.closing_events("over"):
        constructs.see(event.model_dump(mode="json", by_alias=True))
    assert len(constructs) == 0


@given(st.lists(EVENTS, max_size=40))
def test_every_end_has_its_start_and_every_result_its_call(events):
    _, taken = accepted(events)
    for index, event in enumerate(taken):
        before = taken[:index]
        if event["type"] == "TEXT_MESSAGE_END":
            started = [e for e in before if e == {**event, "type": "TEXT_MESSAGE_START"}]
            ended = [e for e in before if e == event]
            assert len(started) == len(ended) + 1
        if event["type"] == "TOOL_CALL_RESULT":
            assert [e for e in before if e["type"] == "TOOL_CALL_END" and e["toolCallId"] == event["toolCallId"]]
            assert event not in before


def test_nothing_follows_the_terminal_event():
    constructs = OpenConstructs()
    constructs.see({"type": "RUN_FINISHED"})
    for event in ({"type": "RUN_ERROR"}, {"type": "CUSTOM"}, {"type": "TEXT_MESSAGE_CONTENT", "messageId": "a"}):
        with pytest.raises(GrammarError, match="nothing may follow"):
            constructs.see(event)


def test_a_message_id_is_used_once():
    constructs = OpenConstructs()
    for kind in ("TEXT_MESSAGE_START", "TEXT_MESSAGE_END"):
        constructs.see({"type": kind, "messageId": "a"})
    with pytest.raises(GrammarError, match="started before"):
        constructs.see({"type": "TEXT_MESSAGE_START", "messageId": "a"})


def test_each_open_tool_call_gets_a_result_so_that_the_next_turn_has_a_valid_history():
    constructs = OpenConstructs()
    constructs.see({"type": "TOOL_CALL_START", "toolCallId": "open"})
    constructs.see({"type": "TOOL_CALL_START", "toolCallId": "ended"})
    constructs.see({"type": "TOOL_CALL_END", "toolCallId": "ended"})
    closing = [event.model_dump(mode="json", by_alias=True) for event in constructs.closing_events("cancelled")]
    results = {event["toolCallId"]: event["content"] for event in closing if event["type"] == "TOOL_CALL_RESULT"}
    assert results == {"open": "cancelled", "ended": "cancelled"}
