import asyncio
import json
from typing import override

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.agents.builtin_tools import CalculatorTool, builtin_tools
from apps.agents.tools import (
    MAX_CALLS_PER_RUN,
    RESULT,
    Tool,
    ToolArguments,
    ToolBeltClosed,
    Toolbox,
    ToolNotUsable,
    ToolRefused,
)
from apps.vocabulary import RunId, ThreadId
from tests.agents.worlds import ADA, BOB, NOW, Threads


class WhoArguments(ToolArguments):
    text: str = ""


class WhoTool(Tool[WhoArguments]):
    """Says for whom it was called."""

    name = "who"
    description = "Says who calls."
    arguments = WhoArguments

    def __init__(self):
        self.calls = 0

    @override
    async def call(self, context, arguments):
        self.calls += 1
        return f"{context.identity.name} {context.idempotency_key} {arguments.text}"


def belt(*tools, identity=ADA):
    return Toolbox(tools).open_belt(identity, RunId("run-1"), ThreadId("thread-1"))


async def test_a_tool_is_told_whose_run_calls_and_a_key_of_its_own():
    who = WhoTool()
    assert await belt(who, identity=BOB).call("who", {"text": "hi"}, "call-1") == "bob run-1:call-1 hi"
    assert await belt(who, identity=ADA).call("who", '{"text": "hi"}', "call-1") == "ada run-1:call-1 hi"


@pytest.mark.parametrize("slipped", ["user_id", "identity", "context", "run_id"])
async def test_an_identity_slipped_into_the_arguments_is_refused(slipped):
    who = WhoTool()
    with pytest.raises(ToolRefused, match=r"Extra inputs are not permitted.*it takes: text"):
        await belt(who).call("who", orjson.dumps({"text": "", slipped: 2}).decode(), "call-1")
    assert who.calls == 0


async def test_a_call_id_works_once():
    who = WhoTool()
    tools = belt(who)
    await tools.call("who", {}, "call-1")
    with pytest.raises(ToolRefused, match="ran already"):
        await tools.call("who", {}, "call-1")
    await tools.call("who", {}, "call-2")
    assert who.calls == 2


async def test_a_call_id_works_once_also_while_the_first_is_at_work():
    started, release = asyncio.Event(), asyncio.Event()

    class Slow(WhoTool):
        @override
        async def call(self, context, arguments):
            self.calls += 1
            started.set()
            await release.wait()
            return "done"

    slow = Slow()
    tools = belt(slow)
    first = asyncio.create_task(tools.call("who", {}, "call-1"))
    await started.wait()
    with pytest.raises(ToolRefused, match="ran already"):
        await tools.call("who", {}, "call-1")
    release.set()
    assert await first == "done"
    assert slow.calls == 1


async def test_a_call_that_was_refused_for_its_arguments_may_be_made_again_with_better_ones():
    tools = belt(WhoTool())
    with pytest.raises(ToolRefused):
        await tools.call("who", '{"text": 3}', "call-1")
    assert await tools.call("who", '{"text": "3"}', "call-1")


async def test_a_run_has_a_bounded_number_of_calls():
    tools = belt(WhoTool())
    for i in range(MAX_CALLS_PER_RUN):
        await tools.call("who", {}, f"call-{i}")
    with pytest.raises(ToolRefused, match="answer without more"):
        await tools.call("who", {}, "one-more")


async def test_an_unknown_tool_is_answered_with_those_that_there_are():
    with pytest.raises(ToolRefused, match="there are: who"):
        await belt(WhoTool()).call("__class__", {}, "call-1")


async def test_a_tool_is_stopped_at_its_timeout():
    stopped = []

    class Hanging(WhoTool):
        timeout_s = 0.01

        @override
        async def call(self, context, arguments):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                stopped.append(True)
                raise

    with pytest.raises(ToolRefused, match=r"longer than 0\.01 seconds"):
        await belt(Hanging()).call("who", {}, "call-1")
    assert stopped == [True]


async def test_a_timeout_inside_a_tool_is_a_defect_and_not_its_bound():
    class Broken(WhoTool):
        @override
        async def call(self, context, arguments):
            raise TimeoutError("some connection")

    with pytest.raises(TimeoutError, match="some connection"):
        await belt(Broken()).call("who", {}, "call-1")


@given(st.text(st.characters(exclude_categories=[]), max_size=600))
@example("x" * 256)
@example("x" * 257)
@example("\0" * 100)
@example("\N{GRINNING FACE}" * 5_000 + "\ud800")
async def test_a_result_is_valid_text_of_bounded_size_that_says_when_it_was_cut(text):
    class Talkative(WhoTool):
        max_result_bytes = 256

        @override
        async def call(self, context, arguments):
            return text

    result = await belt(Talkative()).call("who", {}, "call-1")
    sendable = text.encode(errors="replace").decode()
    size = len(orjson.dumps(sendable)) - 2
    if size <= 256:
        assert result == sendable
    else:
        beginning, note = result.rsplit("\n", 1)
        assert note == f"[cut: {size} bytes]"
        assert sendable.startswith(beginning)
        assert 256 - 6 < len(orjson.dumps(result)) - 2 <= 256


@given(st.text(max_size=300) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
async def test_arguments_that_are_no_object_of_the_declared_type_are_refused(arguments):
    try:
        checked = WhoArguments.model_validate_json(arguments)
    except ValueError:
        if arguments:
            with pytest.raises(ToolRefused, match="cannot take these arguments"):
                await belt(WhoTool()).call("who", arguments, "call-1")
    else:
        assert checked


async def test_a_refusal_does_not_repeat_the_value_it_refuses():
    with pytest.raises(ToolRefused) as caught:
        await belt(WhoTool()).call("who", {"text": ["hunter2"]}, "call-1")
    assert "hunter2" not in str(caught.value)


async def test_arguments_of_any_length_are_not_even_parsed():
    with pytest.raises(ToolRefused, match="longer than 16384 bytes"):
        await belt(WhoTool()).call("who", '{"text": "' + "x" * 40_000 + '"}', "call-1")


async def test_after_the_run_its_tools_refuse_every_use():
    who = WhoTool()
    tools = belt(who)
    async with tools:
        await tools.call("who", {}, "call-1")
    with pytest.raises(ToolBeltClosed, match="run-1 has ended"):
        await tools.call("who", {}, "call-2")
    with pytest.raises(ToolBeltClosed):
        _ = tools.declarations
    assert who.calls == 1
    assert repr(tools) == "<BoundToolBelt closed, 1 tools, 1 calls>"


async def test_a_call_under_way_when_the_run_ends_gets_no_result():
    started, release = asyncio.Event(), asyncio.Event()

    class Slow(WhoTool):
        @override
        async def call(self, context, arguments):
            started.set()
            await release.wait()
            return "too late"

    tools = belt(Slow())
    call = asyncio.create_task(tools.call("who", {}, "call-1"))
    await started.wait()
    tools.close()
    release.set()
    with pytest.raises(ToolBeltClosed):
        await call


def test_a_declaration_is_the_json_schema_of_the_arguments():
    declarations = {tool.name: tool for tool in belt(*builtin_tools(lambda: NOW, Threads().search)).declarations}
    assert list(declarations) == ["calculator", "clock", "search_threads"]
    schema = declarations["calculator"].parameters
    assert schema["required"] == ["expression"]
    assert schema["additionalProperties"] is False
    assert set(declarations["search_threads"].parameters["properties"]) == {"query", "limit"}


def test_what_tabs_may_see_is_what_the_tool_declares_and_nothing_by_default():
    assert Toolbox([WhoTool()]).public_fields == {"who": frozenset()}
    assert Toolbox([CalculatorTool()]).public_fields == {"calculator": frozenset({"expression", RESULT})}


class Misnamed(WhoTool):
    name = "Who?"


class Unbounded(WhoTool):
    timeout_s = 0


class Overpublic(WhoTool):
    public_fields = frozenset({"password"})


class OpenArguments(WhoTool):
    arguments = dict


class ResultArguments(ToolArguments):
    result: str = ""


class Ambiguous(WhoTool):
    arguments = ResultArguments


@pytest.mark.parametrize(
    ("tool_class", "reason"),
    [
        (Misnamed, "must be 1-64 of"),
        (Unbounded, "timeout_s must be above 0"),
        (Overpublic, "public_fields names password"),
        (OpenArguments, "subclass of ToolArguments"),
        (Ambiguous, "cannot be named 'result'"),
    ],
)
def test_a_tool_that_contradicts_itself_is_refused_at_start_up(tool_class, reason):
    with pytest.raises(ToolNotUsable, match=reason):
        Toolbox([tool_class()])


def test_two_tools_of_one_name_are_refused_at_start_up():
    with pytest.raises(ToolNotUsable, match="share a name"):
        Toolbox([WhoTool(), WhoTool()])
