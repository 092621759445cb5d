import pytest

from apps.agents.assistant import MAX_MODEL_CALLS, AssistantAgent, ModelGaveNoAnswer
from apps.agents.base import AgentInput, HistoryMessage, ModelDelta, ToolCallRequest
from tests.agents.worlds import ScriptedModel, World, left_open, text_of, types


def says(*pieces):
    return [ModelDelta(text=piece) for piece in pieces]


def calls(name, arguments, tool_call_id="call_0"):
    return ModelDelta(tool_call=ToolCallRequest(tool_call_id, name, arguments))


async def ask(model, text="What is 6 * 7?", **world):
    events = await World(model=model, **world).events(AssistantAgent(), text)
    assert left_open(events) == set()
    return events


async def test_the_model_answers_as_it_streams():
    events = await ask(ScriptedModel([says("For", "ty", "-two")]))
    assert [event.delta for event in events[1:-1]] == ["For", "ty", "-two"]


async def test_the_model_is_told_the_history_and_then_the_question():
    history = (HistoryMessage("user", "Hi", "m1"), HistoryMessage("assistant", "Hello", "m2"))
    model = ScriptedModel([says("42")])
    await ask(model, history=history)
    ((messages, tools),) = model.asked
    assert [(message.role, message.text) for message in messages] == [
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "What is 6 * 7?"),
    ]
    assert [tool.name for tool in tools] == ["calculator", "clock"]


async def test_a_tool_that_the_model_asks_for_is_run_and_its_result_told_to_the_model():
    model = ScriptedModel([[*says("Let me see."), calls("calculator", '{"expression": "6 * 7"}')], says("It is 42.")])
    events = await ask(model)
    assert types(events) == [
        *["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"],
        *["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"],
        *["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"],
    ]
    assert events[3].parent_message_id == events[0].message_id
    *_, said, result = model.asked[1][0]
    assert (said.role, said.text, said.tool_calls[0]["function"]["name"]) == ("assistant", "Let me see.", "calculator")
    assert (result.role, result.text, result.tool_call_id) == ("tool", "42", said.tool_calls[0]["id"])


async def test_a_model_that_repeats_its_call_ids_is_served_all_the_same():
    once = calls("calculator", '{"expression": "1 + 1"}', "call_0")
    events = await ask(ScriptedModel([[once, once], [once], says("2")]))
    results = [event.content for event in events if types([event]) == ["TOOL_CALL_RESULT"]]
    assert results == ["2", "2", "2"]


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("calculator", "not json", "cannot take these arguments"),
        ("calculator", '{"expression": "1/0"}', "division by zero"),
        ("calculator", "[" * 50_000, "longer than"),
        ("rm_rf", "{}", "there is no tool"),
    ],
)
async def test_a_bad_call_is_answered_with_a_refusal_that_the_model_can_act_on(name, arguments, reason):
    model = ScriptedModel([[calls(name, arguments)], says("I was wrong.")])
    events = await ask(model)
    assert reason in events[3].content
    assert reason in model.asked[1][0][-1].text
    assert model.asked[1][0][-2].tool_calls[0]["function"]["arguments"].startswith("{")
    assert text_of(events) == "I was wrong."


async def test_a_model_that_never_stops_calling_tools_has_to_answer_in_the_end():
    model = ScriptedModel([[*says("Hm. "), calls("calculator", '{"expression": "1"}')]])
    events = await ask(model)
    assert len(model.asked) == MAX_MODEL_CALLS
    assert model.asked[-1][1] == []
    assert types(events).count("TOOL_CALL_RESULT") == MAX_MODEL_CALLS - 1


async def test_reasoning_is_shown_as_reasoning_and_is_no_part_of_the_answer():
    events = await ask(ScriptedModel([[ModelDelta(reasoning="hm"), ModelDelta(reasoning="!"), *says("42")]]))
    assert types(events)[:6] == [
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
    ]
    assert text_of(events) == "42"


async def test_a_model_that_says_nothing_is_a_failure_and_not_an_empty_answer():
    with pytest.raises(ModelGaveNoAnswer, match="without an answer"):
        await ask(ScriptedModel([[ModelDelta(reasoning="hm")]]))


async def test_stopping_in_the_middle_closes_the_models_stream():
    model, world = ScriptedModel([says("a", "b", "c")]), World()
    world.model = model
    stream = AssistantAgent().run(world, world.task("?"))
    async for event in stream:
        if types([event]) == ["TEXT_MESSAGE_CONTENT"]:
            break
    assert model.closed == 0
    await stream.aclose()
    assert model.closed == 1


async def test_attachments_are_named_to_the_model():
    world = World(model=ScriptedModel([says("I see none.")]))
    task = AgentInput(world.run_id, "thread", "what is this?", attachments=("a1", "a2"))
    assert [event async for event in AssistantAgent().run(world, task)]
    assert "`read_attachment` reads: a1, a2" in world.model.asked[0][0][-1].text
