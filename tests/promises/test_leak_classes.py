"""Every leak class has its tests; and the tests of those that nothing else looks for."""

import ast
import asyncio
import gc
import inspect
import threading
import tomllib
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from ag_ui.core import RunAgentInput, UserMessage
from django.db import connection
from django.utils import timezone

from apps.agents.base import HistoryMessage, TokenCount
from apps.agents.provider import ModelProvider, ModelSettings
from apps.chat import agui
from apps.chat.models import CommandReceipt
from apps.realtime.database import DatabaseThreads
from apps.vocabulary import Identity, ThreadId, UserId
from tests.agents import fake_provider as fake
from tests.promises.leak_classes import LEAK_CLASSES

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = range(1, 28)
WHO = {"user_id", "identity", "owner_id", "principal"}


def named_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_leak_class_is_there():
    assert sorted(LEAK_CLASSES) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_leak_class_names_tests_that_exist(number):
    named = dict(name.split("::")[::-1] for name in LEAK_CLASSES[number][1])
    # A room that was removed took its tests along, as the rehearsal of the removal shows.
    there = {test: file for test, file in named.items() if (ROOT / "tests" / file).exists()}
    missing = {test for test, file in there.items() if test not in named_in(ROOT / "tests" / file)}
    assert not missing
    if (ROOT / "apps" / "rollout").exists() and (ROOT / "apps" / "legacy").exists():
        assert there == named


def test_2_the_linter_refuses_what_calls_or_instances_would_share():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert rules["select"] == ["ALL"]
    ignored = {*rules["ignore"], *(code for codes in rules["per-file-ignores"].values() for code in codes)}
    assert not [code for code in ignored if "B006".startswith(code) or "B008".startswith(code)]
    assert not [code for code in ignored if "B019".startswith(code) or "RUF012".startswith(code)]


@pytest.mark.django_db(transaction=True)
async def test_4_one_thread_serves_fifty_users_and_keeps_nothing_of_them():
    def say(text: str) -> str:
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [text])
            return cursor.fetchone()[0]

    def kept() -> str:
        things = gc.get_objects()  # some are proxies of what is gone, which tell no more than their own type
        locals_ = [vars(one) for one in things if issubclass(type(one), threading.local)]
        return f"{locals_} {list(connection.queries_log)}"

    async with DatabaseThreads(1) as threads:
        said = await asyncio.gather(*(threads.call(say, f"canary-{number}") for number in range(50)))
        assert said == [f"canary-{number}" for number in range(50)]
        assert "canary" not in await threads.call(kept)


@pytest.mark.django_db(transaction=True)
async def test_5_cancelled_calls_leave_nobody_an_answer_of_another():
    chance, gate = Random(5), threading.Event()

    def ask(text: str) -> str:
        gate.wait(30)
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [text])
            return cursor.fetchone()[0]

    async with DatabaseThreads(3) as threads:
        names = [f"canary-{number}" for number in range(500)]
        calls = {name: asyncio.create_task(threads.call(ask, name)) for name in names}
        await asyncio.sleep(0)
        cancelled = sum(call.cancel() for call in chance.sample(list(calls.values()), 250))
        gate.set()  # three of them were at work, all others waited
        answers = await asyncio.gather(*calls.values(), return_exceptions=True)
        assert await threads.call(ask, "after") == "after"
    answered = [(text, answer) for text, answer in zip(calls, answers, strict=True) if isinstance(answer, str)]
    assert cancelled == 250
    assert len(answered) == 250
    assert all(text == answer for text, answer in answered)


async def test_5_cancelled_answers_of_a_model_leave_nobody_an_answer_of_another():
    async def echo(writer):
        asked = provider.requests[-1].body["messages"][-1]["content"]
        await fake.says(*[asked] * 3)(writer)

    async def ask(models, name, pieces):
        model = models.model_for("assistant", Identity(UserId(1), name))
        answer = model.stream("", (HistoryMessage("user", name, "m"),), (), TokenCount())
        told = []
        try:
            async for delta in answer:
                told.append(delta.text)
                if len(told) == pieces:
                    break
        finally:
            await answer.aclose()
        return told

    async with fake.fake_provider() as provider:
        provider.script += [echo] * 200
        settings = ModelSettings(model="openai:fake", base_url=provider.url, api_key="none", timeout_s=20.0, retries=0)
        async with ModelProvider(settings) as models:
            names = [f"canary-{number}" for number in range(60)]
            answers = await asyncio.gather(*(ask(models, name, n % 4) for n, name in enumerate(names)))
    assert all(set(told) <= {name} for name, told in zip(names, answers, strict=True))
    assert sum(len(told) for told in answers) > 60


@pytest.mark.django_db
def test_8_ids_that_join_to_the_same_text_are_different_commands():
    before = timezone.now() - timedelta(hours=1)
    pairs = [(1, "1-a"), (11, "-a"), (1, "1_a"), (1, "-1-a"), (11, "a"), (1, "1a")]
    for user_id, command_id in pairs:
        assert CommandReceipt.objects.claim(UserId(user_id), command_id, f"{user_id}/{command_id}", before) is None
    assert CommandReceipt.objects.count() == len(pairs)


def test_8_threads_and_runs_of_stock_clients_that_join_to_the_same_text_are_different():
    def command_id(thread_id: str, run_id: str) -> str:
        given = RunAgentInput(
            thread_id=thread_id,
            run_id=run_id,
            state=None,
            messages=[UserMessage(id="m", content="hello")],
            tools=[],
            context=[],
            forwarded_props=None,
        )
        return agui.understand("assistant", ThreadId("t"), given).command.id

    pairs = [("a", "bc"), ("ab", "c"), ("a:b", "c"), ("a", "b:c"), ("a:", "b:c"), ("3:a", "b"), ("", "3:a:b")]
    told = {command_id(*pair) for pair in pairs if all(pair)}
    assert len(told) == len([pair for pair in pairs if all(pair)])


def test_10_nothing_that_touches_a_users_data_knows_a_default_user():
    with pytest.raises(TypeError):
        Identity()  # type: ignore[call-arg]
    assert not [name for name, one in inspect.signature(Identity).parameters.items() if one.default is not one.empty]
    found = []
    for path in sorted((ROOT / "apps").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args]
                optional = taken[len(taken) - len(node.args.defaults) :]
                by_name = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                optional += [one for one, default in by_name if default]
                found += [f"{path}:{node.lineno} {one.arg}" for one in optional if one.arg in WHO]
    assert not found


def test_16_no_agent_or_tool_touches_a_folder_or_the_environment():
    shared = {"os", "tempfile", "pathlib", "shutil", "subprocess", "shelve"}
    may = {"faulty.py": {"os"}}  # it ends its process on request
    for path in sorted((ROOT / "apps" / "agents").glob("*.py")):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        used = {
            name.partition(".")[0]
            for node in tree
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        assert not (used & shared) - may.get(path.name, set()), path
