"""A run taken down and told again: what a model and tools answered comes from the recording, and from nowhere else."""

from dataclasses import dataclass

import pytest
from ag_ui.core import StepStartedEvent, TextMessageContentEvent, TextMessageStartEvent

from apps.agents.base import Agent, AgentInputError, HistoryMessage, ModelDelta, ToolCallRequest
from apps.agents.provider import ModelUnavailable
from apps.agents.recording import (
    RECORDED_EVENTS,
    RecordedContext,
    Recorder,
    Recording,
    asked_of_model,
    asked_of_tool,
    ending_of,
)
from apps.agents.replaying import CallNotRecorded, RecordedCalls, ReplayedBelt, ReplayedModel
from apps.agents.tools import ToolRefused
from apps.vocabulary import MessageId, ThreadId
from tests.agents.worlds import ScriptedModel, World

SAID = (HistoryMessage("user", "what is 1 + 1?", MessageId("m1")),)


class Asking(Agent):
    """Asks a model, then a tool, as often as it is told."""

    name, title, description = "asking", "Asking", "Asks."

    async def run(self, context, task):
        for number in range(int(task.text)):
            text = ""
            async for delta in context.model.stream("be brief", context.history, (), context.usage):
                text += delta.text
            result = await context.tools.call("calculator", {"expression": f"1 + {number}"}, f"call {number}")
            yield TextMessageStartEvent(message_id=f"m{number}", role="assistant")
            for piece in (text, " ", result):
                yield TextMessageContentEvent(message_id=f"m{number}", delta=piece)


@dataclass
class RunWorld(World):
    """A world with what an engine is told beside it."""

    agent_name: str = "asking"

    @property
    def thread_id(self):
        return ThreadId("thread")

    def create_agent(self):
        return Asking()


def world(*answers, history=SAID, **more):
    deltas = [[ModelDelta(piece) for piece in answer] for answer in answers]
    return RunWorld(model=ScriptedModel(deltas), history=history, **more)


async def recorded(run, text="1", max_bytes=100_000):
    recorder = Recorder(run, max_bytes)
    context = RecordedContext(run, recorder)
    recorder.begin(run.task(text))
    async for event in context.create_agent().run(context, run.task(text)):
        recorder.note_event(event)
    return recorder.finished("")


async def test_a_recording_holds_who_asked_what_and_what_the_world_answered():
    found = await recorded(world(["two", "!"]))
    assert (found.user_id, found.agent, found.text, found.history) == (1, "asking", "1", SAID)
    assert [(call["kind"], call["ending"]) for call in found.calls] == [("model", "returned"), ("tool", "returned")]
    assert [event["type"] for event in found.events] == ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
    assert found.events[1]["delta"] == "two! 1", "adjacent deltas are joined"


async def test_a_recording_survives_its_way_through_a_row():
    request = ToolCallRequest("t1", "calculator", "{}")
    run = RunWorld(model=ScriptedModel([[ModelDelta(reasoning="hm"), ModelDelta(tool_call=request)]]), history=SAID)
    found = await recorded(run)
    assert Recording.from_json(found.as_json()) == found


async def test_a_run_that_is_larger_than_a_recording_may_be_goes_on_and_is_not_recorded():
    run = world(["x" * 500])
    assert await recorded(run, max_bytes=400) is None
    assert run.model.sent == 1
    many = Recorder(run, 10**9)
    many.begin(run.task("1"))
    for number in range(RECORDED_EVENTS + 1):
        many.note_event(StepStartedEvent(step_name=str(number)))
    assert many.finished("") is None


async def test_what_was_never_begun_is_not_recorded():
    assert Recorder(world(["x"]), 1_000).finished("") is None


def test_an_ending_keeps_a_public_text_and_never_that_of_a_defect():
    assert ending_of(None) == ""
    assert ending_of(AgentInputError("give a number")) == "agent_error: give a number"
    assert ending_of(KeyError("ada's secret")) == "KeyError"


def test_what_was_asked_is_known_again_without_the_ids():
    other = (HistoryMessage("user", "what is 1 + 1?", MessageId("another")),)
    assert asked_of_model("i", SAID, ()) == asked_of_model("i", other, ())
    assert asked_of_model("i", SAID, ()) != asked_of_model("i", (), ())
    assert asked_of_tool("search", '{"b": 1, "a": 2}') == asked_of_tool("search", {"a": 2, "b": 1})
    assert asked_of_tool("search", "not json") != asked_of_tool("search", "{}")


async def test_a_refusal_and_an_outage_are_recorded_and_replayed():
    class Failing(ScriptedModel):
        async def stream(self, *_):
            yield ModelDelta("be")
            raise ModelUnavailable("the model is away")

    run = RunWorld(model=Failing([]), history=SAID)
    recorder = Recorder(run, 10_000)
    context = RecordedContext(run, recorder)
    recorder.begin(run.task("1"))
    with pytest.raises(ModelUnavailable):
        [delta async for delta in context.model.stream("be brief", SAID, (), run.usage)]
    with pytest.raises(ToolRefused) as refusal:
        await context.tools.call("nothing", {}, "1")
    calls = RecordedCalls(recorder.finished("unavailable: the model is away"))
    with pytest.raises(ModelUnavailable, match="the model is away"):
        [delta async for delta in ReplayedModel(calls).stream("be brief", SAID, (), run.usage)]
    with pytest.raises(ToolRefused) as replayed:
        await ReplayedBelt(calls, ()).call("nothing", {}, "another id")
    assert str(replayed.value) == str(refusal.value)
    assert calls.diverged == ""


async def replayed(recording, history=SAID, times="1"):
    calls = RecordedCalls(recording)
    live = world([])
    context = RunWorld(model=ReplayedModel(calls), history=history)
    context.tools = ReplayedBelt(calls, ())
    said = ""
    async for event in Asking().run(context, live.task(times)):
        said += getattr(event, "delta", "")
    return said, context.usage, calls


async def test_a_replay_says_the_same_counts_the_same_tokens_and_calls_nothing():
    run = world(["two"], ["three"])
    recording = await recorded(run, "2")
    asked = len(run.model.asked)
    said, usage, calls = await replayed(recording, times="2")
    assert said == "".join(event.get("delta", "") for event in recording.events)
    assert usage == run.usage
    assert (len(run.model.asked), calls.diverged) == (asked, "")


async def test_a_call_that_was_not_recorded_is_refused_and_named():
    recording = await recorded(world(["two"]))
    with pytest.raises(CallNotRecorded):
        await replayed(recording, times="2")
    calls = RecordedCalls(recording)
    for _ in range(2):
        with pytest.raises(CallNotRecorded, match="search"):
            await ReplayedBelt(calls, ()).call("search", {"query": "x"}, "1")
    assert calls.diverged.startswith("tool search ")
    assert not calls.same_but_messages


async def test_a_model_that_is_asked_the_same_in_another_conversation_is_told_apart():
    recording = await recorded(world(["two"]))
    calls = RecordedCalls(recording)
    model = ReplayedModel(calls)
    with pytest.raises(CallNotRecorded):
        [delta async for delta in model.stream("be brief", (), (), world([]).usage)]
    assert calls.same_but_messages
    other = RecordedCalls(recording)
    with pytest.raises(CallNotRecorded):
        [delta async for delta in ReplayedModel(other).stream("be long", SAID, (), world([]).usage)]
    assert not other.same_but_messages


async def test_who_reads_further_than_was_read_has_left_the_recording():
    run = world(["a", "b", "c"])
    recorder = Recorder(run, 10_000)
    context = RecordedContext(run, recorder)
    recorder.begin(run.task("1"))
    stream = context.model.stream("be brief", SAID, (), run.usage)
    await anext(stream)
    await stream.aclose()
    calls = RecordedCalls(recorder.finished(""))
    answer = ReplayedModel(calls).stream("be brief", SAID, (), run.usage)
    assert (await anext(answer)).text == "a"
    with pytest.raises(CallNotRecorded):
        await anext(answer)
