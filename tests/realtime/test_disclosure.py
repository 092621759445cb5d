"""What of an agent's inside reaches the log: no secret, and no more than the installation lets its users see."""

import pytest
from ag_ui.core import (
    ReasoningEndEvent,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    RunErrorEvent,
    SubagentFinishedEvent,
    SubagentStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)

from apps.realtime.redaction import Disclosure
from apps.realtime.secrets import REMOVED
from apps.realtime.values import Ending
from tests.realtime.logging_room import open_log_room
from tests.realtime.test_publisher import finished

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "sk-" + "a1B2" * 12


async def logged(events, disclosure=None, ending=None):
    options = {} if disclosure is None else {"disclosure": disclosure}
    async with open_log_room(**options) as room:
        lease = await room.lease(1)
        publisher = room.publisher(lease)
        for event in events:
            await publisher.publish(event)
        await publisher.finish(ending or finished(lease))
        return [entry["event"] for entry in await room.entries(1)]


def text_of(events):
    return "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")


async def test_a_secret_that_is_cut_into_deltas_never_reaches_the_log():
    pieces = ["My key is ", *KEY, " indeed"]
    events = await logged(
        [
            TextMessageStartEvent(message_id="m"),
            *(TextMessageContentEvent(message_id="m", delta=piece) for piece in pieces),
            TextMessageEndEvent(message_id="m"),
        ]
    )
    assert text_of(events) == f"My key is {REMOVED} indeed"
    assert not any(KEY[:12] in str(event) for event in events)


@pytest.mark.parametrize("ends", [True, False])
async def test_what_was_held_back_is_shown_when_its_message_ends_and_when_its_run_does(ends):
    end = [TextMessageEndEvent(message_id="m")] if ends else []
    begun = [TextMessageStartEvent(message_id="m"), TextMessageContentEvent(message_id="m", delta="the sk")]
    events = await logged([*begun, *end])
    assert text_of(events) == "the sk"
    assert [event["type"] for event in events][-2:] == ["TEXT_MESSAGE_END", "RUN_FINISHED"]


async def test_secrets_in_calls_results_and_errors_are_removed_too():
    ending = Ending(RunErrorEvent(code="agent_error", message=f"no such key {KEY}"), "failed", {}, "agent_error")
    events = await logged(
        [
            ToolCallStartEvent(tool_call_id="c", tool_call_name="search"),
            ToolCallArgsEvent(tool_call_id="c", delta=f'{{"query":"{KEY[:9]}'),
            ToolCallArgsEvent(tool_call_id="c", delta=f'{KEY[9:]}"}}'),
            ToolCallEndEvent(tool_call_id="c"),
            ToolCallResultEvent(message_id="r", tool_call_id="c", content=f"found {KEY}"),
        ],
        ending=ending,
    )
    assert not any(KEY in str(event) for event in events)
    assert sum(str(event).count(REMOVED) for event in events) == 3


async def test_the_installations_own_key_is_removed_whatever_it_looks_like():
    begun = [
        TextMessageStartEvent(message_id="m"),
        TextMessageContentEvent(message_id="m", delta="local-key-0001 it is"),
    ]
    events = await logged(begun, Disclosure(secrets=("local-key-0001",)))
    assert text_of(events) == f"{REMOVED} it is"


async def test_reasoning_and_sub_agents_stay_inside_where_the_installation_says_so():
    inside = [
        SubagentStartedEvent(subagent_run_id="s", name="researcher"),
        ReasoningStartEvent(message_id="a"),
        ReasoningMessageStartEvent(message_id="b", role="reasoning"),
        ReasoningMessageContentEvent(message_id="b", delta="inner thoughts"),
        ReasoningMessageEndEvent(message_id="b"),
        ReasoningEndEvent(message_id="a"),
        TextMessageStartEvent(message_id="m", subagent_run_id="s"),
        TextMessageContentEvent(message_id="m", delta="hello", subagent_run_id="s"),
        TextMessageEndEvent(message_id="m", subagent_run_id="s"),
        SubagentFinishedEvent(subagent_run_id="s"),
    ]
    events = await logged(inside, Disclosure(reasoning=False, subagents=False))
    assert [event["type"] for event in events] == [
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED")
    ]
    assert not any("subagentRunId" in event for event in events)
    shown = {event["type"] for event in await logged(inside)}
    assert shown >= {event.type.value for event in inside}
