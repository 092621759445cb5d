"""The rules of the house that no linter knows: what a module may hold, how long it may be, who may look things up."""

import ast
import importlib
import logging
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from datetime import date, timedelta
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import NewType, TypeVar

import pytest
from django import template
from packaging.requirements import Requirement

from apps.vocabulary import Position

ROOT = Path(__file__).parent.parent
LONGEST_FILE_LINES = 400
LONGEST_FUNCTION_LINES = 50
VAGUE_NAMES = {"utils", "util", "helpers", "common", "core", "constants", "exceptions", "misc", "manager"}

# Django calls these without an argument in which the services could come.
MAY_READ_THE_SERVICES_SLOT = {
    "apps/chat/api.py": "HTTP calls",
    "apps/execution/apps.py": "holds the slot",
    "apps/execution/tasks.py": "wake-ups",
    "apps/operations/console.py": "acts of operators",
    "apps/operations/health.py": "probes of an orchestrator",
    "project/composition.py": "fills and empties the slot",
}
MAY_USE_SIGNALS = {
    "apps/rollout/waffle_gaps.py",  # waffle forgets to flush its cache on some of them
}

# What a module may make when it is imported, beside literals: nothing that can change ...
IMMUTABLE = (str, bytes, int, float, Decimal, tuple, frozenset, date, timedelta, Path, re.Pattern, MappingProxyType)
NAMES_OF_CODE = (type, TypeVar, NewType, FunctionType, itemgetter, logging.Logger, template.Library)
# ... and what somebody outside calls by the name of module and variable.
INSTANCES = {
    "apps.chat.api:api": "django-ninja's routes, complete when the module is imported",
    "apps.realtime.decoding:_KEYS_ONCE": "a decoder without any state",
    "project.asgi:application": "what an ASGI server is told to start",
    "project.asgi:django_application": "Django's handler, one a process",
}
# A class keeps these for the whole process, like a module.
SHARED = {"dict", "list", "set", "deque", "defaultdict", "Counter", "OrderedDict", "WeakSet", "WeakValueDictionary"}
SHARED |= {"Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Queue", "local", "ContextVar"}
CLASS_STATE = {
    "DatabaseWrapper._lines": "the one line of writers that a process has for a SQLite file",
    "Command.requires_system_checks": "Django's way to say: none",
}
MUTATING = {"append", "add", "update", "pop", "popitem", "clear", "setdefault", "extend", "remove", "discard", "insert"}
MAY_BE_LOWER_CASE = {"urlpatterns", "__all__"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sources(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    left_out = {"vendor", "migrations", "node_modules", "__pycache__"}
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and not left_out & set(path.parts)
    )


def rooms() -> list[Path]:
    """All that must hold no state: the legacy room exists to show what happens otherwise."""
    return [path for path in sources("apps", "project") if (ROOT / "apps" / "legacy") not in path.parents]


def called(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


def state_in(tree: ast.Module, value_of: Callable[[str], object]) -> Iterator[tuple[int, str]]:
    """Line and reason of everything in a module that could carry something from one user to another."""
    constants = set()
    for statement in tree.body:
        for name, value in bindings(statement):
            constants.add(name)
            fault = fault_of(name, value, value_of)
            if fault:
                yield statement.lineno, f"{name} {fault}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"global {', '.join(node.names)}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if {called(decorator) for decorator in node.decorator_list} & {"cache", "lru_cache"}:
                yield node.lineno, f"{node.name} remembers what it was asked"
        elif isinstance(node, ast.ClassDef):
            yield from state_of_class(node)
        elif changed(node) in constants:
            yield node.lineno, f"{changed(node)} is changed after import"


def state_of_class(node: ast.ClassDef) -> Iterator[tuple[int, str]]:
    for statement in node.body:
        for name, value in bindings(statement):
            empty = isinstance(value, ast.List | ast.Dict | ast.Set) and not ast.unparse(value).strip("[]{}")
            made = isinstance(value, ast.Call) and called(value) in SHARED
            if (empty or made) and f"{node.name}.{name}" not in CLASS_STATE:
                yield statement.lineno, f"{node.name}.{name} is shared by all of its instances"


def changed(node: ast.AST) -> str:
    """The variable whose content this expression changes; empty when it changes none."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return getattr(node.value, "id", "")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
        return getattr(node.func.value, "id", "")
    return ""


def bindings(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        return [(target.id, statement.value) for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        return [(statement.target.id, statement.value)]
    return []


def fault_of(name: str, value: ast.expr, value_of: Callable[[str], object]) -> str:
    constant = name.isupper() or name in MAY_BE_LOWER_CASE
    if isinstance(value, ast.Call) and called(value) != "getLogger":  # spares importing most modules
        made = value_of(name)
        if unchangeable(made) or (constant and isinstance(made, dict | list | set) and made):
            return ""
        return f"is made at import by {called(value)}(...) and can change"
    if isinstance(value, ast.List | ast.Dict | ast.Set) and not ast.unparse(value).strip("[]{}"):
        return "is an empty container, which only waits to be filled"
    containers = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    if isinstance(value, containers) and not constant:
        return "is a container whose name does not say that it is a constant (upper case)"
    return ""


def unchangeable(value: object) -> bool:
    frozen_dataclass = is_dataclass(value) and type(value).__dataclass_params__.frozen
    return isinstance(value, (*IMMUTABLE, *NAMES_OF_CODE)) or frozen_dataclass


def value_in(module: str) -> Callable[[str], object]:
    def value_of(name: str) -> object:
        # An instance that stands on the list is as good as its name.
        return name if f"{module}:{name}" in INSTANCES else getattr(importlib.import_module(module), name)

    return value_of


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_rooms_import_as_the_contracts_say():
    # In a process of its own: it looks at every module that is loaded, and some libraries' answer no question.
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_holds_what_could_pass_from_one_user_to_another():
    found = [
        f"{relative(path)}:{line}: {reason}"
        for path in rooms()
        if path.name != "settings.py"  # Django reads its settings from a module's names
        for line, reason in state_in(ast.parse(path.read_text(encoding="utf-8")), value_in(module_of(path)))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "runs = {}",
        "RUNS: dict[str, int] = {}",
        "engine = Engine()",
        "LOCK = threading.Lock()",
        "registry = ['a']",
        "LIMITS = {'a': 1}\ndef f(): LIMITS['b'] = 2",
        "LIMITS = [1]\ndef f(): LIMITS.append(2)",
        "def f():\n    global current\n    current = 1",
        "@cache\ndef user_name(user_id): ...",
        "@functools.lru_cache(maxsize=10)\ndef user_name(user_id): ...",
        "current = ContextVar('current')",
        "class Engine:\n    runs = {}",
        "class Engine:\n    slots: ClassVar = asyncio.Semaphore(10)",
    ],
)
def test_the_rule_on_state_sees(text):
    assert list(state_in(ast.parse(text), lambda _name: object()))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("LIMITS = {'a': 1}", None),
        ("NAME = re.compile('x')", re.compile("x")),
        ("KEYS = frozenset({'a'})", frozenset({"a"})),
        ("logger = logging.getLogger(__name__)", logging.getLogger(__name__)),
        ("START = Position('0', 0, '0')", Position("0", 0, "0")),
    ],
)
def test_the_rule_on_state_lets_pass(text, value):
    assert not list(state_in(ast.parse(text), lambda _name: value))


def test_identity_travels_as_an_argument_and_control_flow_in_no_signal():
    forbidden = {"contextvars", "django.dispatch", "django.db.models.signals", "django.core.signals"}
    found = []
    for path in rooms():
        if relative(path) in MAY_USE_SIGNALS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
            found += [f"{relative(path)}:{node.lineno}: {name}" for name in names & forbidden]
    assert not found, "\n".join(found)


def test_only_the_listed_files_look_services_up():
    readers = {relative(path) for path in rooms() if reads_the_slot(ast.parse(path.read_text(encoding="utf-8")))}
    assert readers == set(MAY_READ_THE_SERVICES_SLOT)


def reads_the_slot(tree: ast.Module) -> bool:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(
        called(call) == "execution_config"
        or (called(call) == "get_app_config" and ast.unparse(call.args[0]).strip("'") == "execution")
        for call in calls
    )


@pytest.mark.parametrize(
    "text",
    ["execution_config().services.runs", "slot = execution_config()", "apps.get_app_config('execution').services"],
)
def test_the_rule_on_the_slot_sees(text):
    assert reads_the_slot(ast.parse(text))


def test_no_file_is_longer_than_a_reader_can_hold():
    suffixes = (".py", ".js", ".css", ".html", ".sh")
    folders = ("apps", "project", "tests", "tools", "benchmarks")
    lengths = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(*folders, suffixes=suffixes)
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE_LINES}


def test_no_function_is_longer_than_a_screen():
    found = {
        f"{relative(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in sources("apps", "project", "tools", "benchmarks")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert not {name: length for name, length in found.items() if length > LONGEST_FUNCTION_LINES}


def test_every_file_has_a_name_that_says_what_is_in_it():
    paths = sources("apps", "project", "tools", "benchmarks", suffixes=(".py", ".js"))
    assert not [relative(path) for path in paths if {path.stem, *path.parent.parts} & VAGUE_NAMES]


def test_every_test_file_lies_where_the_file_that_it_tests_lies():
    rooms_of_tests = {
        path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and (path / "__init__.py").exists()
    }
    rooms_of_code = {path.name for path in (ROOT / "apps").iterdir() if (path / "__init__.py").exists()}
    across = {
        "authorisation",
        "browser",
        "clients",
        "contracts",
        "docs",
        "faults",
        "promises",
        "project",
        "removal",
        "tools",
    }
    assert rooms_of_tests <= rooms_of_code | across


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pins = [line.split(";")[0].split("\\")[0].strip() for line in lines if line[:1].isalnum()]
    return {pin: pin.partition("==")[2] for pin in pins}


def test_tests_run_the_versions_that_production_runs():
    assert set(locked("production.txt")) <= set(locked("development.txt"))


def test_the_locks_hold_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    production = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["models"]
    for lock, wanted in (("production.txt", production), ("development.txt", project["dependency-groups"]["dev"])):
        pins = [Requirement(pin) for pin in locked(lock)]
        for requirement in map(Requirement, wanted):
            versions = [next(iter(pin.specifier)).version for pin in pins if pin.name == requirement.name]
            assert versions, f"{requirement} is not in {lock}: make lock"
            assert all(version in requirement.specifier for version in versions), f"{requirement}: make lock"


def test_the_locks_hash_everything_and_name_no_host():
    for lock in ("production.txt", "development.txt"):
        text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
        assert "://" not in text
        assert text.count(" \\\n    --hash=sha256:") >= len(locked(lock))
