"""Tools that change something act on their user's word, once, and on nothing else than what was approved."""

from dataclasses import replace

import orjson
import pytest
from ag_ui.core import EventType

from apps.agents.assistant import AssistantAgent
from apps.agents.base import AgentInput, ApprovalNeeded, Decision, HistoryMessage, ModelDelta, ToolCallRequest
from apps.agents.builtin_tools import ThreadRenameTool, builtin_tools
from apps.agents.tools import Toolbox, ToolRefused
from apps.vocabulary import MessageId, RunId, ThreadId
from tests.agents.worlds import ADA, NOW, ScriptedModel, World, text_of, types

ARGUMENTS = '{"title":"Whales"}'


class Renamed(list):
    async def rename(self, identity, thread_id, title):
        self.append((identity.user_id, thread_id, title))


def world(renamed, **more):
    made = World(**more)
    made.tools = Toolbox(builtin_tools(lambda: NOW, None, renamed.rename)).open_belt(
        made.identity, made.run_id, ThreadId("thread")
    )
    return made


def decided(approved=True, **changes):
    decision = Decision("i1", RunId("asked"), "call-1", "rename_thread", ARGUMENTS, approved, "not that")
    return replace(decision, **changes)


async def until_asked(run):
    events = []
    try:
        async for event in run:
            events.append(event)  # noqa: PERF401 - what came before the exception counts
    except ApprovalNeeded as asked:
        return events, asked.request
    raise AssertionError("it did not ask")


async def test_the_offline_assistant_asks_before_it_renames_and_does_it_once_when_told_so():
    renamed = Renamed()
    asking = world(renamed)
    events, request = await until_asked(AssistantAgent().run(asking, asking.task("Rename this thread to Whales")))
    assert types(events) == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
    assert (request.tool, orjson.loads(request.arguments)) == ("rename_thread", {"title": "Whales"})
    assert request.question == "Rename this thread to “Whales”?"
    assert renamed == []
    resumed = world(renamed)
    decision = decided(arguments=request.arguments, tool_call_id=request.tool_call_id)
    task = AgentInput(resumed.run_id, ThreadId("thread"), "Rename this thread to Whales", resume=(decision,))
    said = [event async for event in AssistantAgent().run(resumed, task)]
    assert renamed == [(ADA.user_id, "thread", "Whales")]
    assert "now called “Whales”" in text_of(said)
    assert "TOOL_CALL_RESULT" in types(said)


async def test_a_denial_changes_nothing_and_says_so():
    renamed = Renamed()
    resumed = world(renamed)
    task = AgentInput(resumed.run_id, ThreadId("thread"), "rename", resume=(decided(approved=False),))
    assert "Nothing was changed." in text_of([event async for event in AssistantAgent().run(resumed, task)])
    assert renamed == []


@pytest.mark.parametrize(
    ("approved", "told"), [(True, "now called"), (False, "declined this call. They said: not that")]
)
async def test_a_model_is_told_what_came_of_the_call_that_waited(approved, told):
    call = {"id": "call-1", "type": "function", "function": {"name": "rename_thread", "arguments": ARGUMENTS}}
    history = (
        HistoryMessage("user", "rename it", MessageId("m1")),
        HistoryMessage("assistant", "", MessageId("m2"), tool_calls=(call,)),
        HistoryMessage("tool", "This call was not finished.", MessageId("m3"), tool_call_id="call-1"),
    )
    for before in (history, history[:1]):  # also where the history's bound cut the call off
        model = ScriptedModel([[ModelDelta(text="Fine.")]])
        resumed = world(Renamed(), model=model, history=before)
        task = AgentInput(resumed.run_id, ThreadId("thread"), "rename it", resume=(decided(approved),))
        said = [event async for event in AssistantAgent().run(resumed, task)]
        assert text_of(said) == "Fine."
        (messages, _), *_ = model.asked
        (result,) = [message for message in messages if message.tool_call_id == "call-1"]
        assert told in result.text
        assert [message.role for message in messages].count("user") == 1


async def test_a_models_call_waits_and_calls_behind_it_are_not_begun():
    requests = [
        ToolCallRequest("a", "calculator", '{"expression":"1+1"}'),
        ToolCallRequest("b", "rename_thread", ARGUMENTS),
    ]
    requests.append(ToolCallRequest("c", "calculator", '{"expression":"2+2"}'))
    model = ScriptedModel([[ModelDelta(tool_call=request) for request in requests]])
    asking = world(Renamed(), model=model)
    events, request = await until_asked(AssistantAgent().run(asking, asking.task("do it")))
    assert [event.tool_call_name for event in events if event.type is EventType.TOOL_CALL_START] == [
        *("calculator", "rename_thread")
    ]
    assert request.arguments == ARGUMENTS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"approved": False}, "declined"),
        ({"arguments": '{"title":"Sharks"}'}, "approved another call"),
        ({"tool": "calculator"}, "approved another call"),
    ],
)
async def test_only_the_call_that_was_approved_is_made(changes, said):
    renamed = Renamed()
    tools = world(renamed).tools
    with pytest.raises(ToolRefused, match=said):
        await tools.call("rename_thread", ARGUMENTS, "x", decided(**changes))
    assert renamed == []


async def test_an_approved_call_acts_under_the_key_of_the_call_that_asked():
    keys = []

    class Noting(ThreadRenameTool):
        async def call(self, context, arguments):
            keys.append(context.idempotency_key)
            return "done"

    async with Toolbox([Noting(Renamed().rename)]).open_belt(ADA, RunId("later"), ThreadId("t")) as tools:
        await tools.call("rename_thread", ARGUMENTS, "x", decided())
    assert keys == ["asked:call-1"]


async def test_arguments_are_checked_before_anybody_is_asked():
    for wrong in ('{"title":""}', '{"title":"  "}', '{"title":"a","user_id":2}', "nonsense"):
        with pytest.raises(ToolRefused, match="cannot take these arguments"):
            await world(Renamed()).tools.call("rename_thread", wrong, "x")
