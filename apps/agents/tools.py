"""What a tool is, and the tools of one run.

A model, and through it anyone whose text the model reads, chooses a tool and writes its arguments. So the
arguments are checked against a declared type that takes nothing else, whose data is touched comes from the
run and never from the arguments, a call id works once, and time and size are bounded.
"""

import asyncio
import bisect
import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from apps.agents.base import QUESTION_CHARACTERS, ApprovalNeeded, ApprovalRequest, Decision, ToolDeclaration
from apps.vocabulary import Identity, RunId, ThreadId

RESULT = "result"  # in `public_fields`: the tool's result may be shown
MAX_CALLS_PER_RUN = 100
MAX_CALL_ID_CHARACTERS = 128
MAX_ARGUMENT_BYTES = 16_384  # of the JSON text; as a string in an event it can be twice that

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)


class ToolRefused(Exception):  # noqa: N818 - an answer to a call, not a fault
    """The call has no result. The text is for the model and the user: what was wrong and what is accepted."""


class ToolBeltClosed(RuntimeError):  # noqa: N818 - names the state that was met
    """The run that these tools belonged to has ended."""


class ToolNotUsable(TypeError):  # noqa: N818 - names the state that was met
    """A tool's declaration contradicts itself; raised while the process starts."""


class Effect(enum.StrEnum):
    """What a tool does to the world outside its run."""

    NONE = "none"
    READ = "read"
    WRITE = "write"


class ToolArguments(BaseModel):
    """Arguments of a tool. Takes no field that is not declared, so that no `user_id` can be slipped in."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who calls, in which run. `idempotency_key` (run:tool_call) is for services that take one."""

    identity: Identity
    run_id: RunId
    thread_id: ThreadId
    idempotency_key: str


class Tool[Arguments: ToolArguments](ABC):
    """One thing that an agent can do outside its own head. Lives as long as the process, so it holds nobody's
    data.

    `public_fields` names the arguments that tabs may see, and RESULT if they may see the result; all else is
    hidden.
    """

    name: str
    description: str
    arguments: type[Arguments]
    public_fields: frozenset[str] = frozenset()
    effect: Effect = Effect.NONE
    timeout_s: float = 10.0  # seconds for one call
    max_result_bytes: int = 32_768  # bytes as a JSON string, as it stands in an event; a longer one is cut, and says so

    @abstractmethod
    async def call(self, context: ToolContext, arguments: Arguments) -> str:
        """Do it. Raises ToolRefused with a text for the model and the user."""

    def question(self, arguments: Arguments) -> str:
        """What the user is asked before a tool with `Effect.WRITE` acts."""
        return f"Run {self.name} with {arguments.model_dump_json()}?"


class Toolbox:
    """The tools of a process, checked once. Raises ToolNotUsable for one that contradicts itself."""

    def __init__(self, tools: Sequence[Tool[Any]]) -> None:
        self._tools: Mapping[str, Tool[Any]] = MappingProxyType({tool.name: tool for tool in tools})
        if len(self._tools) != len(tools):
            raise ToolNotUsable(f"two tools share a name among {', '.join(tool.name for tool in tools)}")
        for tool in tools:
            _check_usable(tool)
        # Making a JSON schema takes pydantic longer than many a run takes altogether.
        self._declarations = tuple(
            ToolDeclaration(tool.name, tool.description, tool.arguments.model_json_schema()) for tool in tools
        )

    @property
    def public_fields(self) -> Mapping[str, frozenset[str]]:
        """By tool name: the arguments, and RESULT, that tabs may see."""
        return {name: tool.public_fields for name, tool in self._tools.items()}

    def open_belt(self, identity: Identity, run_id: RunId, thread_id: ThreadId) -> "BoundToolBelt":
        """The tools for one run; close it when the run ends."""
        return BoundToolBelt(self._tools, self._declarations, identity, run_id, thread_id)


class BoundToolBelt:
    """The tools of one run, bound to its user. `async with`, or `close()`; afterwards every use raises
    ToolBeltClosed.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool[Any]],
        declarations: Sequence[ToolDeclaration],
        identity: Identity,
        run_id: RunId,
        thread_id: ThreadId,
    ) -> None:
        self._tools = tools
        self._declarations = tuple(declarations)
        self._identity = identity
        self._run_id = run_id
        self._thread_id = thread_id
        self._called: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<BoundToolBelt {state}, {len(self._tools)} tools, {len(self._called)} calls>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End of the run. A call still under way gets ToolBeltClosed instead of its result."""
        self._closed = True

    @property
    def declarations(self) -> Sequence[ToolDeclaration]:
        """What a model may be offered, in a stable order. Raises ToolBeltClosed."""
        self._check_open()
        return self._declarations

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str, tool_call_id: str, decision: Decision | None = None
    ) -> str:
        """Check the arguments (an object, or the JSON text of one) and run the tool, at most once per
        `tool_call_id`.

        A tool with `Effect.WRITE` acts on its user's approval only, and on the call that was approved; the key under
        which it acts is that of the call that asked. Raises ToolRefused, with a text for the model and the user,
        ApprovalNeeded, and ToolBeltClosed.
        """
        self._check_open()
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            raise ToolRefused(f"there is no tool {name[:64]!r}; there are: {known}")
        checked = _checked(tool, arguments)
        self._admit(tool_call_id)
        key = f"{self._run_id}:{tool_call_id}"
        if tool.effect is Effect.WRITE:
            key = _approved(tool, checked, arguments, tool_call_id, decision)
        context = ToolContext(self._identity, self._run_id, self._thread_id, key)
        scope = asyncio.timeout(tool.timeout_s)
        try:
            async with scope:
                result = await tool.call(context, checked)
        except TimeoutError:
            if not scope.expired():
                raise  # the tool's own, of some connection: a defect of the tool, not this bound
            raise ToolRefused(f"{name} took longer than {tool.timeout_s:g} seconds and was stopped") from None
        self._check_open()
        return _cut(result, tool.max_result_bytes)

    def _check_open(self) -> None:
        if self._closed:
            raise ToolBeltClosed(f"run {self._run_id} has ended; its tools cannot be used any more")

    def _admit(self, tool_call_id: str) -> None:
        if not 1 <= len(tool_call_id) <= MAX_CALL_ID_CHARACTERS:
            raise ToolRefused(f"a tool call id has 1 to {MAX_CALL_ID_CHARACTERS} characters")
        if tool_call_id in self._called:
            raise ToolRefused("this tool call ran already; another call needs an id of its own")
        if len(self._called) >= MAX_CALLS_PER_RUN:
            raise ToolRefused(f"this run has made its {MAX_CALLS_PER_RUN} tool calls; answer without more")
        self._called.add(tool_call_id)


def _approved(
    tool: Tool[Any],
    checked: ToolArguments,
    arguments: Mapping[str, Any] | str,
    tool_call_id: str,
    decision: Decision | None,
) -> str:
    """The key under which an approved call acts. Raises ApprovalNeeded, and ToolRefused where it was not approved."""
    text = arguments if isinstance(arguments, str) else orjson.dumps(dict(arguments)).decode()
    if decision is None:
        question = tool.question(checked)[:QUESTION_CHARACTERS]
        raise ApprovalNeeded(ApprovalRequest(tool_call_id, tool.name, text, question))
    if not decision.approved:
        raise ToolRefused(f"the user declined this call of {tool.name}")
    if (decision.tool, decision.arguments) != (tool.name, text):
        raise ToolRefused(f"the user approved another call than this one of {tool.name}")
    return f"{decision.run_id}:{decision.tool_call_id}"


def _checked(tool: Tool[Any], arguments: Mapping[str, Any] | str) -> ToolArguments:
    try:
        checked: ToolArguments
        if isinstance(arguments, str):
            if len(arguments.encode(errors="surrogatepass")) > MAX_ARGUMENT_BYTES:
                raise ToolRefused(f"the arguments are longer than {MAX_ARGUMENT_BYTES} bytes")
            checked = tool.arguments.model_validate_json(arguments or "{}")
        else:
            checked = tool.arguments.model_validate(dict(arguments))
    except ValidationError as error:
        # Where and why, never the value: it may be long, and the text goes to tabs and to a model.
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))[:64] or 'arguments'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_context=False, include_url=False)[:5]
        )
        accepted = ", ".join(tool.arguments.model_fields) or "none"
        raise ToolRefused(f"{tool.name} cannot take these arguments ({problems}); it takes: {accepted}") from None
    return checked


def _cut(text: str, max_bytes: int) -> str:
    text = text.encode(errors="replace").decode()  # a lone surrogate cannot be sent
    size = _json_bytes(text)
    if size <= max_bytes:
        return text
    note = f"\n[cut: {size} bytes]"
    room = max_bytes - _json_bytes(note)
    # The longest beginning that fits. A slice and not a share of the size: one character is 1 to 6 bytes.
    fitting = bisect.bisect_right(range(min(len(text), room) + 1), room, key=lambda end: _json_bytes(text[:end])) - 1
    return text[:fitting] + note


def _json_bytes(text: str) -> int:
    return len(orjson.dumps(text)) - 2  # without its quotes


def _check_usable(tool: Tool[Any]) -> None:
    where = type(tool).__qualname__
    if not _NAME.fullmatch(tool.name):
        raise ToolNotUsable(f"{where}: name {tool.name!r} must be 1-64 of a-z, 0-9 and _, and begin with a letter")
    if not issubclass(tool.arguments, ToolArguments):
        raise ToolNotUsable(f"{where}: arguments must be a subclass of ToolArguments, which refuses unknown fields")
    if RESULT in tool.arguments.model_fields:
        raise ToolNotUsable(f"{where}: an argument cannot be named {RESULT!r}, which names the result")
    unknown = tool.public_fields - {RESULT, *tool.arguments.model_fields}
    if unknown:
        raise ToolNotUsable(f"{where}: public_fields names {', '.join(sorted(unknown))}, which it does not have")
    if tool.timeout_s <= 0 or tool.max_result_bytes < 256:  # noqa: PLR2004 - room for the note that it was cut
        raise ToolNotUsable(f"{where}: timeout_s must be above 0 and max_result_bytes at least 256")
