"""What one run was told by the world outside of it, and what it said: all that a replay needs.

An agent does all its I/O through `context.model` and `context.tools`, so their answers are the whole difference
between a run and its replay (`apps.agents.replaying`). What was asked is kept as digests, without the ids that are
drawn anew in each run.
"""

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from ag_ui.core import BaseEvent

from apps.agents.base import (
    Agent,
    AgentFailure,
    AgentInput,
    Decision,
    HistoryMessage,
    Model,
    ModelDelta,
    TokenCount,
    ToolBelt,
    ToolDeclaration,
)
from apps.agents.provider import ModelUnavailable
from apps.agents.streaming import closing
from apps.agents.tools import ToolRefused
from apps.vocabulary import Identity, RunId, ThreadId, UserId

RECORDED_EVENTS = 2_000  # of one run, joined deltas counting once

type Call = dict[str, Any]


class RunContext(Protocol):
    """What an engine is given to run an agent, seen from here."""

    @property
    def run_id(self) -> RunId: ...
    @property
    def thread_id(self) -> ThreadId: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def history(self) -> Sequence[HistoryMessage]: ...
    @property
    def model(self) -> Model | None: ...
    @property
    def tools(self) -> ToolBelt: ...
    @property
    def usage(self) -> TokenCount: ...
    @property
    def agent_name(self) -> str: ...
    def create_agent(self) -> Agent: ...


@dataclass(frozen=True, slots=True)
class Recording:
    """One finished run: who asked what, what the world answered, what the agent said, how it ended.

    `events` are in their wire form, adjacent deltas joined. `ending` is empty for a run that returned, else what it
    raised: a public text for a failure that has one, else a type's name.
    """

    user_id: UserId
    user_name: str
    run_id: RunId
    thread_id: ThreadId
    agent: str
    text: str
    attachments: tuple[str, ...]
    history: tuple[HistoryMessage, ...]
    has_model: bool
    calls: tuple[Call, ...]
    events: tuple[dict[str, Any], ...]
    ending: str

    def as_json(self) -> str:
        """The text that `from_json` reads."""
        return orjson.dumps(self, default=_plain).decode()

    @classmethod
    def from_json(cls, text: str) -> "Recording":
        """Read what `as_json` wrote."""
        stored = orjson.loads(text)
        history = tuple(
            HistoryMessage(**message | {"tool_calls": tuple(message["tool_calls"])}) for message in stored["history"]
        )
        tuples = {name: tuple(stored[name]) for name in ("attachments", "calls", "events")}
        return cls(**stored | tuples | {"history": history})


class Recorder:
    """Takes down one run while it goes on. Above `max_bytes` it gives up, and the run never notices."""

    def __init__(self, context: RunContext, max_bytes: int) -> None:
        self._context = context
        self._history = tuple(context.history)
        self._left = max_bytes - sum(len(message.text) for message in self._history)
        self._task: AgentInput | None = None
        self._calls: list[Call] = []
        self._events: list[dict[str, Any]] = []

    @property
    def given_up(self) -> bool:
        """Whether the run was larger than what may be kept."""
        return self._left < 0

    def begin(self, task: AgentInput) -> None:
        """Note what is asked, before anything is answered."""
        self._task = task
        self._charge(len(task.text))

    def note_call(self, call: Call) -> None:
        """Keep what was asked and answered."""
        self._charge(len(orjson.dumps(call)))
        if not self.given_up:
            self._calls.append(call)

    def note_event(self, event: BaseEvent) -> None:
        """Keep what the agent said, a delta joined to the one before it."""
        if self.given_up:
            return
        fields = event.model_dump(mode="json", by_alias=True)
        last = self._events[-1] if self._events else {}
        if "delta" in fields and isinstance(fields["delta"], str) and _same_construct(last, fields):
            last["delta"] += fields["delta"]
            self._charge(len(fields["delta"]))
            return
        self._events.append(fields)
        self._charge(len(orjson.dumps(fields, default=str)))
        if len(self._events) > RECORDED_EVENTS:
            self._left = -1

    def finished(self, ending: str) -> Recording | None:
        """The recording of a run that ended by itself; None when it was given up."""
        context, task = self._context, self._task
        if self.given_up or task is None:
            return None
        return Recording(
            user_id=context.identity.user_id,
            user_name=context.identity.name,
            run_id=task.run_id,
            thread_id=task.thread_id,
            agent=context.agent_name,
            text=task.text,
            attachments=task.attachments,
            history=self._history,
            has_model=context.model is not None,
            calls=tuple(self._calls),
            events=tuple(self._events),
            ending=ending,
        )

    def _charge(self, size: int) -> None:
        self._left -= size
        if self.given_up:
            self._calls.clear()
            self._events.clear()


@dataclass(frozen=True, slots=True)
class RecordedContext:
    """A run's context whose model and tools are listened to."""

    outer: RunContext
    recorder: Recorder

    @property
    def identity(self) -> Identity:
        """Whose run it is."""
        return self.outer.identity

    @property
    def run_id(self) -> RunId:
        """The run's."""
        return self.outer.run_id

    @property
    def thread_id(self) -> ThreadId:
        """The run's."""
        return self.outer.thread_id

    @property
    def history(self) -> Sequence[HistoryMessage]:
        """The run's."""
        return self.outer.history

    @property
    def model(self) -> Model | None:
        """The run's model, listened to."""
        model = self.outer.model
        return None if model is None else _RecordedModel(model, self.recorder)

    @property
    def tools(self) -> ToolBelt:
        """The run's tools, listened to."""
        return _RecordedBelt(self.outer.tools, self.recorder)

    @property
    def usage(self) -> TokenCount:
        """The run's."""
        return self.outer.usage

    @property
    def agent_name(self) -> str:
        """The run's."""
        return self.outer.agent_name

    def create_agent(self) -> Agent:
        """A new instance of the run's agent."""
        return self.outer.create_agent()


@dataclass(frozen=True, slots=True)
class _RecordedModel:
    model: Model
    recorder: Recorder

    async def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncGenerator[ModelDelta]:
        before = (usage.input_tokens, usage.output_tokens)
        asked = asked_of_model(instructions, messages, tools)
        deltas: list[dict[str, Any]] = []
        ending, text = "left", ""
        try:
            async with closing(self.model.stream(instructions, messages, tools, usage)) as answer:
                async for delta in answer:
                    deltas.append(_delta_fields(delta))
                    yield delta
            ending = "returned"
        except ModelUnavailable as error:
            ending, text = "unavailable", error.public_message
            raise
        finally:
            used = [usage.input_tokens - before[0], usage.output_tokens - before[1]]
            self.recorder.note_call(
                {"kind": "model", "asked": asked, "deltas": deltas, "used": used, "ending": ending, "text": text}
            )


@dataclass(frozen=True, slots=True)
class _RecordedBelt:
    tools: ToolBelt
    recorder: Recorder

    @property
    def declarations(self) -> Sequence[ToolDeclaration]:
        return self.tools.declarations

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str, tool_call_id: str, decision: Decision | None = None
    ) -> str:
        asked = asked_of_tool(name, arguments)
        try:
            text = await self.tools.call(name, arguments, tool_call_id, decision)
        except ToolRefused as refused:
            self.recorder.note_call({"kind": "tool", "asked": asked, "ending": "refused", "text": str(refused)})
            raise
        self.recorder.note_call({"kind": "tool", "asked": asked, "ending": "returned", "text": text})
        return text


def asked_of_model(instructions: str, messages: Sequence[HistoryMessage], tools: Sequence[ToolDeclaration]) -> str:
    """What a model call asks for, as three digests: instructions, conversation, tools. Ids do not count."""
    said = [(message.role, message.text, _called(message)) for message in messages]
    return ".".join(map(_digest, (instructions, said, [tool.name for tool in tools])))


def asked_of_tool(name: str, arguments: Mapping[str, Any] | str) -> str:
    """What a tool call asks for, as its name and a digest of its arguments, however they are written."""
    try:
        plain = orjson.loads(arguments or "{}") if isinstance(arguments, str) else dict(arguments)
    except orjson.JSONDecodeError:
        plain = arguments
    return f"{name}.{_digest(plain)}"


def ending_of(error: BaseException | None) -> str:
    """How a run ended, as a recording keeps it: never the text of a defect, which may hold anything."""
    match error:
        case None:
            return ""
        case AgentFailure():
            return f"{error.code}: {error.public_message}"
        case _:
            return type(error).__name__


def _called(message: HistoryMessage) -> list[Any]:
    return [call.get("function", {}) for call in message.tool_calls]


def _delta_fields(delta: ModelDelta) -> dict[str, Any]:
    request = delta.tool_call
    named = (
        {"tool_call_id": request.tool_call_id, "name": request.name, "arguments": request.arguments}
        if request
        else None
    )
    return {"text": delta.text, "reasoning": delta.reasoning, "tool_call": named}


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()[:16]


def _same_construct(last: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    keys = ("type", "messageId", "toolCallId", "subagentRunId")
    return all(last.get(key) == fields.get(key) for key in keys)


def _plain(value: Any) -> Any:
    return str(value)
