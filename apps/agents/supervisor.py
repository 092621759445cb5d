"""An agent that lets others answer. Small on purpose: it routes, delegates, and says which of them failed."""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import override

from ag_ui.core import (
    BaseEvent,
    ReasoningEndEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    SubagentErrorEvent,
    SubagentFinishedEvent,
    SubagentFinishedSuspendedOutcome,
    SubagentStartedEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)

from apps.agents.base import (
    Agent,
    AgentCatalog,
    AgentContext,
    AgentDescription,
    AgentFailure,
    AgentInput,
    ApprovalNeeded,
    HistoryMessage,
    Model,
    TokenCount,
    ToolBelt,
)
from apps.agents.blocking import answer_of
from apps.agents.streaming import closing, say
from apps.vocabulary import Identity, MessageId, new_id

MAX_DEPTH = 3  # agents below the first one
MAX_ROUTING_CHARACTERS = 200  # of a model's choice

_ADDRESSED = re.compile(r"\s*@(?P<name>[a-z][a-z0-9_-]{0,31})(?:[:,]?\s+|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class DelegatedContext:
    """The context of an agent that works for another: the same run and bounds, one level deeper."""

    outer: AgentContext
    depth: int

    @property
    def identity(self) -> Identity:
        """Whose run this is."""
        return self.outer.identity

    @property
    def history(self) -> Sequence[HistoryMessage]:
        """The thread before this run."""
        return self.outer.history

    @property
    def model(self) -> Model | None:
        """The run's model."""
        return self.outer.model

    @property
    def tools(self) -> ToolBelt:
        """The run's tools."""
        return self.outer.tools

    @property
    def usage(self) -> TokenCount:
        """What the run has used so far, all its agents together."""
        return self.outer.usage


class SupervisorAgent(Agent):
    """Routes to one agent: the one that is addressed (`@metronome count=3`), else the model's choice, else
    the default.
    """

    name = "supervisor"
    title = "Supervisor"
    description = "Hands your message to the agent that fits; address one yourself with @name."

    def __init__(self, agents: AgentCatalog) -> None:
        self._agents = agents

    @override
    async def run(self, context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """Delegate. A failure of the other agent that has a public text becomes part of the answer."""
        depth = context.depth if isinstance(context, DelegatedContext) else 0
        if depth >= MAX_DEPTH:
            raise AgentFailure(f"Agents delegated to each other {MAX_DEPTH} times without an answer.")
        chosen, text = await self._route(context, task.text)
        delegated = replace(task, text=text)
        async with closing(self._delegate(chosen, DelegatedContext(context, depth + 1), delegated)) as events:
            async for event in events:
                yield event

    async def _route(self, context: AgentContext, text: str) -> tuple[AgentDescription, str]:
        """The agent to ask, and what to ask it."""
        others = {agent.name: agent for agent in self._agents.describe()}
        addressed = _ADDRESSED.match(text)
        if addressed is not None:
            chosen = others.get(addressed["name"])
            if chosen is None:
                raise AgentFailure(f"There is no agent @{addressed['name']}; there are: {', '.join(others)}.")
            return chosen, text[addressed.end() :]
        candidates = [agent for agent in others.values() if agent.name != self.name]
        if context.model is None or len(candidates) == 1:
            return candidates[0], text
        return await _chosen_by_model(context.model, context.usage, candidates, text), text

    async def _delegate(
        self, chosen: AgentDescription, context: DelegatedContext, task: AgentInput
    ) -> AsyncIterator[BaseEvent]:
        subagent_run_id = new_id()
        yield SubagentStartedEvent(subagent_run_id=subagent_run_id, name=chosen.name, description=chosen.description)
        open_constructs = _OpenConstructs()
        try:
            async with closing(answer_of(self._agents.create(chosen.name), context, task)) as events:
                async for event in events:
                    open_constructs.follow(event)
                    yield _attributed(event, subagent_run_id)
        except ApprovalNeeded:
            yield SubagentFinishedEvent(subagent_run_id=subagent_run_id, outcome=SubagentFinishedSuspendedOutcome())
            raise
        except AgentFailure as failure:
            for event in open_constructs.ends():
                yield _attributed(event, subagent_run_id)
            yield SubagentErrorEvent(subagent_run_id=subagent_run_id, message=failure.public_message, code=failure.code)
            async with closing(
                say(context, f"**{chosen.title}** could not answer. {failure.public_message}")
            ) as events:
                async for event in events:
                    yield event
        else:
            yield SubagentFinishedEvent(subagent_run_id=subagent_run_id)


async def _chosen_by_model(
    model: Model, usage: TokenCount, candidates: Sequence[AgentDescription], text: str
) -> AgentDescription:
    """The candidate that the model names; the first where it names none. Raises ModelUnavailable."""
    listing = "\n".join(f"- {agent.name}: {agent.description}" for agent in candidates)
    instructions = (
        "Choose the agent that should answer the user's message. Reply with its name and nothing else. "
        f"The agents:\n{listing}"
    )
    reply = ""
    message = HistoryMessage("user", text, MessageId(new_id()))
    async with closing(model.stream(instructions, (message,), (), usage)) as deltas:
        async for delta in deltas:
            reply += delta.text
            if len(reply) > MAX_ROUTING_CHARACTERS:
                break
    named = reply.strip(" \n\t.`'\"*@").lower()
    return next((agent for agent in candidates if agent.name == named), candidates[0])


def _attributed(event: BaseEvent, subagent_run_id: str) -> BaseEvent:
    """The event, marked as the subagent's unless an agent further down has marked it already."""
    fields = type(event).model_fields
    if isinstance(event, SubagentStartedEvent):
        if event.parent_subagent_run_id is None:
            return event.model_copy(update={"parent_subagent_run_id": subagent_run_id})
    elif (
        "subagent_run_id" in fields
        and not isinstance(event, SubagentFinishedEvent | SubagentErrorEvent)
        and getattr(event, "subagent_run_id", None) is None
    ):
        return event.model_copy(update={"subagent_run_id": subagent_run_id})
    return event


class _OpenConstructs:
    """What an agent has begun and not ended: it may fail in the middle, and the answer goes on after it."""

    def __init__(self) -> None:
        self._ends: dict[str, BaseEvent] = {}

    def follow(self, event: BaseEvent) -> None:
        match event:
            case TextMessageStartEvent():
                self._ends[event.message_id] = TextMessageEndEvent(message_id=event.message_id)
            case ReasoningStartEvent():
                self._ends[event.message_id] = ReasoningEndEvent(message_id=event.message_id)
            case ReasoningMessageStartEvent():
                self._ends[event.message_id] = ReasoningMessageEndEvent(message_id=event.message_id)
            case ToolCallStartEvent():
                self._ends[event.tool_call_id] = ToolCallEndEvent(tool_call_id=event.tool_call_id)
            case ToolCallEndEvent():
                self._ends[event.tool_call_id] = _no_result(event.tool_call_id)
            case ToolCallResultEvent():
                self._ends.pop(event.tool_call_id, None)
            case TextMessageEndEvent() | ReasoningEndEvent() | ReasoningMessageEndEvent():
                self._ends.pop(event.message_id, None)

    def ends(self) -> Iterator[BaseEvent]:
        """Events that end everything, the innermost first."""
        for end in reversed(self._ends.values()):
            yield end
            if isinstance(end, ToolCallEndEvent):
                yield _no_result(end.tool_call_id)


def _no_result(tool_call_id: str) -> BaseEvent:
    return ToolCallResultEvent(message_id=new_id(), tool_call_id=tool_call_id, content="The call was not finished.")
