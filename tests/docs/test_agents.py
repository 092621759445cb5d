"""The page on agents names every built-in agent and every tool."""

from types import SimpleNamespace

from apps.agents.base import AgentInput, TokenCount
from apps.agents.builtin_tools import builtin_tools
from apps.agents.registry import AgentClassRegistry, build_registry
from apps.vocabulary import Identity, RunId, ThreadId, UserId
from tests.docs.pages import code, page

AGENTS = page("reference/agents.md")


def test_every_built_in_agent_is_documented_and_no_other():
    there = {agent.name for agent in build_registry(faulty_allowed=True).describe()}
    assert {code(row[0])[0] for row in AGENTS.rows("Agents")} == there


def test_every_tool_is_documented_and_no_other():
    async def search(user_id, query, limit, besides):
        return ()

    async def rename(identity, thread_id, title):
        pass

    tools = builtin_tools(search=search, rename=rename)
    assert {code(row[0])[0] for row in AGENTS.rows("Tools")} == {tool.name for tool in tools}


async def test_the_first_agent_of_the_tutorial_works():
    (source,) = page("tutorial/first-agent.md").fences("python")
    names = {}
    exec(compile(source, "greeter.py", "exec"), names)
    registry = AgentClassRegistry()
    registry.register(names["GreeterAgent"])
    context = SimpleNamespace(identity=Identity(UserId(7), "Ann"), usage=TokenCount())
    task = AgentInput(RunId("r"), ThreadId("t"), "hi")
    events = [event async for event in registry.create("greeter").run(context, task)]
    text = "".join(event.delta for event in events if event.type == "TEXT_MESSAGE_CONTENT")
    assert text == "Hello, Ann you said: hi "
    assert context.usage.output_tokens == 5
