"""What an agent is, and what it is given.

Agents do all their I/O through their context; they know no run, socket or log.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from ag_ui.core import BaseEvent

from apps.vocabulary import Identity, MessageId, RunId, ThreadId

APPROVAL_CHARACTERS = 65_536  # of the arguments of a call that waits for approval
QUESTION_CHARACTERS = 1_000


class AgentFailure(Exception):  # noqa: N818 - the base of named failures
    """An anticipated failure of a run, with a public text: what was wrong, what is accepted, what to do next.

    Whoever runs the agent ends the run with RUN_ERROR, this `code` and this text. Any other exception of an
    agent is a defect, whose text may hold anything and is shown to nobody.
    """

    code: ClassVar[Literal["agent_error", "unavailable"]] = "agent_error"

    @property
    def public_message(self) -> str:
        """What the user is told."""
        return str(self)


class AgentInputError(AgentFailure):
    """The agent cannot work with what the user wrote; the text says what it accepts."""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A tool call that may not be made before the user has said so. `question` is shown to the user.

    The agent has yielded the call's TOOL_CALL_START, ARGS and END, and no result. `arguments` is the JSON text that
    the tool will be called with, if the user approves: it is stored, and comes back as it was.
    """

    tool_call_id: str
    tool: str
    arguments: str
    question: str

    def __post_init__(self) -> None:
        for value, most in (
            (self.tool_call_id, 128),
            (self.tool, 100),
            (self.arguments, APPROVAL_CHARACTERS),
            (self.question, QUESTION_CHARACTERS),
        ):
            if len(value) > most:
                raise ValueError(f"a part of a request for approval has {len(value)} characters; at most {most} fit")

    @property
    def digest(self) -> str:
        """SHA-256 of the call: what was approved is what was asked for, to the byte."""
        return hashlib.sha256(f"{self.tool}\0{self.arguments}".encode()).hexdigest()


class ApprovalNeeded(Exception):  # noqa: N818 - how an agent ends its stream until its user has answered
    """The agent asks for its user's word, and its run ends as `waiting`.

    The answer starts a new run of the same agent, which finds it in `AgentInput.resume`. One call at a time: an
    agent that wants several asks for the next when it was resumed.
    """

    def __init__(self, request: ApprovalRequest) -> None:
        super().__init__(request)
        self.request = request


@dataclass(frozen=True, slots=True)
class Decision:
    """What the user said to a call that waited, with the call as it was stored.

    `run_id` is the run that asked: `run_id:tool_call_id` is the key under which the tool may act once.
    """

    interrupt_id: str
    run_id: RunId
    tool_call_id: str
    tool: str
    arguments: str
    approved: bool
    comment: str = ""


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """One finished message of the thread, oldest first in a history.

    The message that this run answers is not in the history; it is the run's AgentInput. `tool_calls` are
    AG-UI tool calls: `{"id", "type": "function", "function": {"name", "arguments"}}`.
    """

    role: Literal["user", "assistant", "tool"]
    text: str
    message_id: MessageId
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class AgentInput:
    """What the user asked in this run.

    A run that goes on from an approval or a denial has the answer in `resume`; then its history holds the question
    and what was answered before, the call that waited among it, and `text` is the question again.
    """

    run_id: RunId
    thread_id: ThreadId
    text: str
    attachments: tuple[str, ...] = ()
    resume: tuple[Decision, ...] = ()


@dataclass(slots=True)
class TokenCount:
    """Tokens used so far. Offline agents report a token a word."""

    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Count what one model call, or one offline answer, used."""
        if input_tokens < 0 or output_tokens < 0:
            raise ValueError("tokens are counted up only")
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens


@dataclass(frozen=True, slots=True)
class ToolCallRequest:
    """A tool call that the model asks for; `arguments` is the JSON text the model wrote."""

    tool_call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """One piece of a model's streamed answer: text, reasoning, or a whole tool call."""

    text: str = ""
    reasoning: str = ""
    tool_call: ToolCallRequest | None = None


@dataclass(frozen=True, slots=True)
class ToolDeclaration:
    """What a model is told of a tool: `parameters` is a JSON schema object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Model(Protocol):
    """A model bound to one run's identity."""

    def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        """Stream one answer; adds what it used to `usage`. Raises ModelUnavailable (apps.agents.provider)."""
        ...


class ToolBelt(Protocol):
    """The tools of one run. Using it after the run ended raises ToolBeltClosed (apps.agents.tools)."""

    @property
    def declarations(self) -> Sequence[ToolDeclaration]:
        """What a model may be offered, in a stable order."""
        ...

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str, tool_call_id: str, decision: Decision | None = None
    ) -> str:
        """Check the arguments and run the tool at most once; one that changes something needs its user's `decision`.

        Raises ToolRefused (apps.agents.tools), and ApprovalNeeded where there is no decision yet.
        """
        ...


class AgentContext(Protocol):
    """The whole world of an agent during one run."""

    @property
    def identity(self) -> Identity:
        """Whose run this is."""
        ...

    @property
    def history(self) -> Sequence[HistoryMessage]:
        """The thread before this run, bounded."""
        ...

    @property
    def model(self) -> Model | None:
        """The configured model, bound to this run; None where none is configured."""
        ...

    @property
    def tools(self) -> ToolBelt:
        """The tools, bound to this run."""
        ...

    @property
    def usage(self) -> TokenCount:
        """What the run has used so far."""
        ...


class Agent(ABC):
    """One way to answer. A class is registered once; every run gets an instance of its own.

    `run` yields AG-UI content events (TEXT_MESSAGE_*, REASONING_*, TOOL_CALL_*, SUBAGENT_*, STEP_*).
    RUN_STARTED and the terminal event belong to whoever runs the agent. Returning ends the run with success,
    raising with `agent_error`. One that is `blocking` may block: each answer of it has a thread of its own.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    restartable: ClassVar[bool] = False
    blocking: ClassVar[bool] = False
    max_tokens: ClassVar[int] = 4096

    @abstractmethod
    def run(self, context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """Answer `task`. An async generator; it is closed when the run is cancelled or times out."""


@dataclass(frozen=True, slots=True)
class AgentDescription:
    """What users, admission and other agents are told of an agent."""

    name: str
    title: str
    description: str
    restartable: bool
    max_tokens: int


class AgentCatalog(Protocol):
    """The agents there are, as an agent that delegates sees them."""

    def create(self, name: str) -> Agent:
        """A new instance of the agent `name`. Raises AgentUnknown."""
        ...

    def describe(self) -> Sequence[AgentDescription]:
        """All agents; the first is the default."""
        ...


class AgentUnknown(LookupError):  # noqa: N818 - an answer to a name, not a fault
    """There is no agent of that name; the text lists the names that there are."""
