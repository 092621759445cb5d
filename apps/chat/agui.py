"""AG-UI over HTTP: what a stock client sends, as Turnout's commands, and a thread, as a stock client knows it.

The server keeps the history: of the messages that a client sends along, the last one counts, and goes to the end of
the thread's shown branch. A client makes the ids of its threads and runs by itself. The id of one of the user's threads
is taken as it is; any other is a name among this user's own threads, so that no id is ever another user's.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from ag_ui.core import MessagesSnapshotEvent, RunAgentInput, TextPart, UserMessage
from pydantic import BaseModel, ConfigDict, ValidationError

from apps.agents.base import HistoryMessage
from apps.chat.export import branch_to
from apps.chat.history import told
from apps.chat.messages import MessageView
from apps.chat.projection import ThreadView
from apps.chat.snapshot import read_snapshot
from apps.chat.sse import WhenLeft
from apps.chat.streaming import Rebuild
from apps.realtime.protocol import IfBusy, RunStart, ToolDecide
from apps.vocabulary import ErrorCode, MessageId, Refusal, RunId, ThreadId, UserId

_ID_BYTES: Final = 1_024  # of a client's own thread or run id


class Wishes(BaseModel):
    """`forwardedProps.turnout`: what AG-UI has no field for."""

    model_config = ConfigDict(extra="forbid")

    if_busy: IfBusy = IfBusy.REJECT
    when_left: WhenLeft = WhenLeft.CONTINUE
    parent_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class AguiCall:
    """One call of a stock client, understood."""

    command: RunStart | ToolDecide
    wishes: Wishes


def client_key(given: str) -> str:
    """What a client's own name of a thread is known by, among the threads of its user."""
    return hashlib.sha256(_bounded(given, "threadId").encode(errors="replace")).hexdigest()


def understand(agent: str, thread_id: ThreadId, given: RunAgentInput) -> AguiCall:
    """The command in a stock client's call. The same `runId` is the same command, so that a repeated call acts once.

    Raises Refusal(bad_request).
    """
    wishes = _wishes(given.forwarded_props)
    run_id = _bounded(given.run_id, "runId")
    command_id = hashlib.sha256(f"agui:{len(given.thread_id)}:{given.thread_id}:{run_id}".encode()).hexdigest()
    if given.resume:
        return AguiCall(_decision(command_id, given), wishes)
    parent = None if wishes.parent_message_id is None else MessageId(wishes.parent_message_id)
    command = RunStart(
        command_id,
        thread_id,
        _last_text(given),
        agent=agent,
        parent_message_id=parent,
        if_busy=wishes.if_busy,
    )
    return AguiCall(command, wishes)


def rebuild_within(max_bytes: int) -> Rebuild:
    """Makes the MESSAGES_SNAPSHOT of a run that begins: the messages up to the one that it answers."""

    def rebuild(user_id: UserId, thread_id: ThreadId, run_id: RunId) -> Mapping[str, Any]:
        view = read_snapshot(user_id, thread_id).view
        run = view.runs.get(run_id)
        return messages_snapshot(view, None if run is None else run.message_id, max_bytes)

    return rebuild


def messages_snapshot(view: ThreadView, message_id: MessageId | None, max_bytes: int) -> Mapping[str, Any]:
    """The branch that ends with this message as MESSAGES_SNAPSHOT, the newest messages that fit."""
    messages = list(_newest(branch_to(view, message_id), max_bytes))
    event = MessagesSnapshotEvent.model_validate({"messages": messages})
    return event.model_dump(mode="json", by_alias=True)


def _newest(branch: Sequence[MessageView], max_bytes: int) -> Iterable[dict[str, Any]]:
    turns: list[list[dict[str, Any]]] = []
    size = 0
    for message in reversed(branch):
        turn = [
            _wire(part) for part in told(message.message_id, message.role, message.text, message.as_json()["parts"])
        ]
        size += len(orjson.dumps(turn))
        if size > max_bytes:
            break
        turns.append(turn)
    return (message for turn in reversed(turns) for message in turn)


def _wire(message: HistoryMessage) -> dict[str, Any]:
    wire: dict[str, Any] = {"id": message.message_id, "role": message.role, "content": message.text}
    if message.tool_calls:
        wire["toolCalls"] = [dict(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        wire["toolCallId"] = message.tool_call_id
    return wire


def _decision(command_id: str, given: RunAgentInput) -> ToolDecide:
    answers = given.resume or []
    if len(answers) != 1:
        raise Refusal(ErrorCode.BAD_REQUEST, "`resume` answers one interrupt a call")
    answer = answers[0]
    payload = answer.payload if isinstance(answer.payload, Mapping) else {}
    approved = payload.get("approved", payload.get("approve", True)) if answer.status == "resolved" else False
    reason = payload.get("reason")
    if not isinstance(approved, bool) or not isinstance(reason, str | None):
        text = "`resume[0].payload` is {approved: true or false, reason: a text}, or is left out"
        raise Refusal(ErrorCode.BAD_REQUEST, text)
    return ToolDecide(command_id, answer.interrupt_id, approve=approved, reason=reason)


def _last_text(given: RunAgentInput) -> str:
    last = given.messages[-1] if given.messages else None
    if not isinstance(last, UserMessage):
        raise Refusal(ErrorCode.BAD_REQUEST, "the last of `messages` is what the user says: its role is `user`")
    if isinstance(last.content, str):
        return last.content
    if not all(isinstance(part, TextPart) for part in last.content):
        text = "a message's content is text; send files to /api/attachments, and their ids to /api/runs"
        raise Refusal(ErrorCode.BAD_REQUEST, text)
    return "".join(part.text for part in last.content if isinstance(part, TextPart))


def _wishes(forwarded: Any) -> Wishes:
    given = forwarded.get("turnout", {}) if isinstance(forwarded, Mapping) else {}
    try:
        return Wishes.model_validate(given)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, problem["loc"])) or "value" for problem in error.errors()[:3])
        accepted = f"if_busy ({', '.join(IfBusy)}), when_left ({', '.join(WhenLeft)}), parent_message_id"
        text = f"`forwardedProps.turnout` has a wrong {where[:100]}; it takes {accepted}"
        raise Refusal(ErrorCode.BAD_REQUEST, text) from None


def _bounded(given: str, name: str) -> str:
    if not 1 <= len(given.encode(errors="replace")) <= _ID_BYTES:
        raise Refusal(ErrorCode.BAD_REQUEST, f"`{name}` has 1 to {_ID_BYTES} bytes")
    return given
