import asyncio
import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest

from apps.agents.assistant import AssistantAgent
from apps.agents.base import HistoryMessage, TokenCount, ToolDeclaration
from apps.agents.provider import ModelNotConfigured, ModelProvider, ModelSettings, ModelUnavailable
from tests.agents import fake_provider as fake
from tests.agents.worlds import ADA, BOB, World, left_open, text_of, types

QUESTION = (HistoryMessage("user", "What is 6 * 7?", "m1"),)
SECRET = "sk-hunter2"


@pytest.fixture
async def server():
    async with fake.fake_provider() as provider:
        yield provider


def settings(server, **changes):
    bounds = {"timeout_s": 5.0, "stall_timeout_s": 5.0, "retries": 0}
    return ModelSettings(model="openai:fake", base_url=server.url, api_key=SECRET, **{**bounds, **changes})


async def stream(provider, identity=ADA, messages=QUESTION, tools=(), usage=None):
    model = provider.model_for("assistant", identity)
    return [delta async for delta in model.stream("Be brief.", messages, tools, usage or TokenCount())]


async def test_an_answer_streams_piece_by_piece_and_its_tokens_are_counted(server):
    server.script.append(fake.says("For", "ty", "-two"))
    usage = TokenCount()
    async with ModelProvider(settings(server)) as provider:
        deltas = await stream(provider, usage=usage)
    assert [delta.text for delta in deltas] == ["For", "ty", "-two"]
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)


async def test_the_request_holds_instructions_history_tools_and_no_name_of_user_or_thread(server):
    server.script.append(fake.says("42"))
    tool = ToolDeclaration("calculator", "Calculates.", {"type": "object", "properties": {}})
    async with ModelProvider(settings(server)) as provider:
        await stream(provider, tools=[tool])
    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.body["model"] == "fake"
    assert [(message["role"], message["content"]) for message in request.body["messages"]] == [
        ("system", "Be brief."),
        ("user", "What is 6 * 7?"),
    ]
    assert [tool["function"]["name"] for tool in request.body["tools"]] == ["calculator"]
    assert "user" not in request.body
    assert ADA.name not in str(request)


async def test_the_assistant_uses_its_tools_through_a_real_model(server):
    server.script += [fake.calls_tool("calculator", '{"express', 'ion": "6 * 7"}'), fake.says("It is **42**.")]
    async with ModelProvider(settings(server)) as provider:
        world = World(model=provider.model_for("assistant", ADA))
        events = await world.events(AssistantAgent(), "What is 6 * 7?")
    assert left_open(events) == set()
    assert types(events)[:4] == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert (events[3].content, text_of(events)) == ("42", "It is **42**.")
    call, result = server.requests[1].body["messages"][-2:]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"] == events[0].tool_call_id
    assert result["content"] == "42"


async def test_a_history_that_was_cut_is_repaired_before_it_is_sent(server):
    server.script.append(fake.says("42"))
    call = {"id": "t1", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}
    cut = (HistoryMessage("assistant", "", "m0", tool_calls=(call,)), *QUESTION)
    async with ModelProvider(settings(server)) as provider:
        await stream(provider, messages=cut)
    assert [message["role"] for message in server.requests[0].body["messages"]] == [
        *["system", "assistant", "tool", "user"]
    ]


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (fake.fails("429 Too Many Requests", f'{{"error": {{"message": "{SECRET}"}}}}'), "too many requests"),
        (fake.fails("500 Internal Server Error", f"trace {SECRET}"), "could not answer"),
        (fake.fails("503 Service Unavailable", SECRET), "could not answer"),
        (fake.fails("401 Unauthorized", f'{{"error": {{"message": "bad key {SECRET}"}}}}'), "TURNOUT_MODEL_API_KEY"),
        (fake.fails("404 Not Found", '{"error": {"code": "model_not_found"}}'), "TURNOUT_MODEL"),
        (fake.fails("400 Bad Request", f'{{"error": {{"message": "{SECRET}"}}}}'), "refused the request"),
        (fake.breaks_off("For"), "broke before its answer was complete"),
        (fake.ends_early("For", "ty"), "could not answer|broke"),
        (fake.sends(b"data: {not json}\n\n"), "cannot be read"),
        (fake.sends(b"data: [1, 2]\n\n"), "cannot be read"),
        (fake.sends(b"\xff\xfe\x00 garbage \n\n" * 10), "could not answer|broke"),
        (fake.sends(), "could not answer|broke"),
        (fake.sends(b'data: {"error": {"message": "overloaded"}}\n\n'), "could not answer"),
        (fake.sends(b"\x1f\x8b", headers=("Content-Encoding: gzip",)), "larger than this server takes"),
    ],
)
async def test_every_fault_of_the_provider_is_one_failure_with_a_text_of_ours(server, behaviour, told, caplog):
    server.script.append(behaviour)
    async with ModelProvider(settings(server)) as provider:
        with caplog.at_level(logging.DEBUG, logger="apps"), pytest.raises(ModelUnavailable, match=told) as caught:
            await stream(provider)
    assert SECRET not in caught.value.public_message
    assert caught.value.code == "unavailable"
    assert f"failed for user {ADA.user_id}" in caplog.text
    assert SECRET not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("apps"))


async def test_what_came_before_a_break_was_streamed_and_its_tokens_are_counted(server):
    server.script.append(fake.breaks_off("one ", "two ", "three "))
    usage, pieces = TokenCount(), []

    async def collect(model):
        async for delta in model.stream("", QUESTION, (), usage):
            pieces.append(delta.text)  # noqa: PERF401 - a list that outlives the exception

    async with ModelProvider(settings(server)) as provider:
        with pytest.raises(ModelUnavailable):
            await collect(provider.model_for("assistant", ADA))
    assert pieces == ["one ", "two ", "three "]
    assert usage.output_tokens == 3


async def test_a_server_that_counts_no_tokens_is_counted_by_words(server):
    server.script.append(fake.says("one ", "two", tokens=None))
    usage = TokenCount()
    async with ModelProvider(settings(server)) as provider:
        await stream(provider, usage=usage)
    assert usage.output_tokens == 2


async def test_a_provider_that_stalls_is_given_up_at_the_stall_timeout(server):
    server.script.append(fake.stalls("For"))
    async with ModelProvider(settings(server, stall_timeout_s=0.1)) as provider:
        async with asyncio.timeout(4):
            with pytest.raises(ModelUnavailable, match="too long"):
                await stream(provider)


async def test_a_provider_that_drips_for_ever_is_given_up_at_the_answers_timeout(server):
    server.script.append(fake.drips("."))
    async with ModelProvider(settings(server, timeout_s=0.2)) as provider:
        async with asyncio.timeout(4):
            with pytest.raises(ModelUnavailable, match="too long"):
                await stream(provider)


async def test_an_answer_without_end_is_given_up_at_its_size(server):
    server.script.append(fake.floods())
    async with ModelProvider(settings(server, response_bytes=1_000_000)) as provider:
        with pytest.raises(ModelUnavailable, match="larger than this server takes"):
            await stream(provider)


async def test_an_error_without_end_is_given_up_at_its_size(server):
    server.script.append(fake.fails("500 Internal Server Error", "x" * 2_000_000))
    async with ModelProvider(settings(server, response_bytes=1_000_000)) as provider:
        with pytest.raises(ModelUnavailable, match="larger than this server takes"):
            await stream(provider)


async def test_nobody_listening_is_a_broken_connection():
    broken = ModelSettings(model="fake", base_url="http://127.0.0.1:9/v1", retries=0, timeout_s=5)
    async with ModelProvider(broken) as provider:
        with pytest.raises(ModelUnavailable, match="connection to the model broke"):
            await stream(provider)


async def test_a_refused_request_is_tried_again_as_often_as_allowed_and_no_more(server):
    refusal = fake.fails("429 Too Many Requests", "{}", "Retry-After-Ms: 1")
    server.script += [refusal, fake.says("42")]
    async with ModelProvider(settings(server, retries=1)) as provider:
        assert [delta.text for delta in await stream(provider)] == ["42"]
        server.script += [refusal, refusal, fake.says("never asked for")]
        with pytest.raises(ModelUnavailable):
            await stream(provider)
    assert len(server.requests) == 4


async def test_an_answer_that_began_is_never_asked_for_again(server):
    server.script += [fake.breaks_off("For"), fake.says("never asked for")]
    async with ModelProvider(settings(server, retries=2)) as provider:
        with pytest.raises(ModelUnavailable):
            await stream(provider)
    assert len(server.requests) == 1


async def test_stopping_in_the_middle_drops_the_connection(server):
    server.script.append(fake.drips("."))
    async with ModelProvider(settings(server)) as provider:
        answer = provider.model_for("assistant", ADA).stream("", QUESTION, (), TokenCount())
        async for _ in answer:
            break
        await answer.aclose()
        async with asyncio.timeout(4):
            await server.dropped.wait()


async def test_a_cookie_of_one_users_answer_goes_out_with_nobodys_request(server):
    server.script += [fake.says("a", headers=("Set-Cookie: session=ada; Path=/",)), fake.says("b")]
    async with ModelProvider(settings(server)) as provider:
        await stream(provider, ADA)
        await stream(provider, BOB)
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


async def test_answers_of_two_users_at_once_are_not_mixed_on_the_shared_client(server):
    script = {"ada": fake.says(*["a"] * 50), "bob": fake.says(*["b"] * 50)}

    async def by_question(writer):
        await script[server.requests[-1].body["messages"][-1]["content"]](writer)

    server.script += [by_question] * 20
    async with ModelProvider(settings(server)) as provider, asyncio.TaskGroup() as group:
        answers = [
            (user.name, group.create_task(stream(provider, user, (HistoryMessage("user", user.name, "m"),))))
            for user in [ADA, BOB] * 10
        ]
    assert all("".join(delta.text for delta in answer.result()) == name[0] * 50 for name, answer in answers)


async def test_closing_the_provider_closes_its_connections(server):
    server.script.append(fake.says("42"))
    async with ModelProvider(settings(server)) as provider:
        await stream(provider)
        assert len(server.sockets) == 1
    async with asyncio.timeout(4):
        await server.dropped.wait()


async def test_without_a_model_there_is_none():
    async with ModelProvider(ModelSettings()) as provider:
        assert provider.model_for("assistant", ADA) is None


def test_without_a_model_nothing_of_pydantic_ai_is_imported():
    program = (
        "import asyncio, sys\n"
        "from apps.agents.provider import ModelProvider, ModelSettings\n"
        "from apps.agents.registry import build_registry\n"
        "build_registry(faulty_allowed=True)\n"
        "async def main():\n"
        "    async with ModelProvider(ModelSettings()):\n"
        "        print([name for name in sys.modules if name.split('.')[0] in ('pydantic_ai', 'openai')])\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr


async def test_a_missing_extra_is_named_at_start_up(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    monkeypatch.delitem(sys.modules, "apps.agents.pydantic_models", raising=False)
    with pytest.raises(ModelNotConfigured, match="the extra `models` is not installed"):
        async with ModelProvider(ModelSettings(model="openai:gpt-5-mini")):
            pass


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (ModelSettings(model="openai:gpt-5-mini"), "TURNOUT_MODEL_API_KEY"),
        (ModelSettings(model="nonsense"), "nonsense"),
        (ModelSettings(model="nobody:gpt"), "nobody:gpt"),
        (ModelSettings(model="fake", base_url="ftp://example.org"), "TURNOUT_MODEL_BASE_URL"),
    ],
)
async def test_settings_that_cannot_be_used_are_refused_at_start_up(wrong, reason, monkeypatch):
    monkeypatch.delenv("TURNOUT_MODEL_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelNotConfigured, match=reason):
        async with ModelProvider(wrong):
            pass


def test_a_provider_that_nobody_opened_says_so():
    with pytest.raises(RuntimeError, match="is not open"):
        ModelProvider(ModelSettings(model="fake")).model_for("assistant", ADA)


def test_the_key_is_shown_nowhere():
    assert SECRET not in repr(ModelSettings(model="fake", api_key=SECRET))
    assert SECRET not in repr(ModelProvider(ModelSettings(model="fake", api_key=SECRET)))


ANTHROPIC = b"".join(
    b"event: %s\ndata: %s\n\n" % (json.loads(data)["type"].encode(), data)
    for data in (
        b'{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],%s}}'
        % b'"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Forty-two"}}',
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":7}}',
        b'{"type":"message_stop"}',
    )
)


async def test_anthropics_protocol_works_with_the_same_settings(server):
    server.script.append(fake.sends(ANTHROPIC))
    usage = TokenCount()
    async with ModelProvider(replace(settings(server), model="anthropic:claude-x")) as provider:
        deltas = await stream(provider, usage=usage)
    assert "".join(delta.text for delta in deltas) == "Forty-two"
    assert usage.output_tokens == 7
    (request,) = server.requests
    assert any(SECRET in value for value in request.headers.values())
    assert request.body["model"] == "claude-x"


async def test_an_agent_may_have_a_model_of_its_own(server):
    server.script += [fake.says("a"), fake.says("b")]
    async with ModelProvider(settings(server, by_agent={"writer": "openai:large"})) as provider:
        for agent in ("writer", "assistant"):
            model = provider.model_for(agent, ADA)
            assert [delta async for delta in model.stream("", QUESTION, (), TokenCount())]
    assert [request.body["model"] for request in server.requests] == ["large", "fake"]
