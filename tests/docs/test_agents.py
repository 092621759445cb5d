"""The page on agents names every built-in agent and every tool."""

import os
import subprocess
import sys

from apps.agents.builtin_tools import builtin_tools
from apps.agents.fetching import FetchTool
from apps.agents.registry import AgentClassRegistry, build_registry
from tests.docs.pages import ROOT, code, page

AGENTS = page("reference/agents.md")


def test_every_built_in_agent_is_documented_and_no_other():
    there = {agent.name for agent in build_registry(faulty_allowed=True).describe()}
    assert {code(row[0])[0] for row in AGENTS.rows("Agents")} == there


def test_every_tool_is_documented_and_no_other():
    async def search(user_id, query, limit, besides):
        return ()

    async def rename(identity, thread_id, title):
        pass

    async def read(user_id, attachment_id):
        return "", "", b""

    tools = builtin_tools(search=search, rename=rename, read=read)
    assert {code(row[0])[0] for row in AGENTS.rows("Tools")} == {tool.name for tool in tools} | {FetchTool.name}


def test_the_first_agent_of_the_tutorial_passes_the_tests_of_the_tutorial(tmp_path):
    agent, tests = page("tutorial/first-agent.md").fences("python")
    (tmp_path / "greeter.py").write_text(agent, encoding="utf-8")
    (tmp_path / "test_greeter.py").write_text(tests, encoding="utf-8")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["project.testing"]\n', encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_first_agent_of_the_tutorial_can_be_registered():
    source, _ = page("tutorial/first-agent.md").fences("python")
    names = {}
    exec(compile(source, "greeter.py", "exec"), names)
    registry = AgentClassRegistry()
    registry.register(names["GreeterAgent"])
    assert registry.create("greeter").title == "Greeter"
