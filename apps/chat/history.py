"""What an agent is told of the conversation so far: the branch that leads to its run's message, bounded and valid.

Model providers refuse a history in which a tool call has no result, so one that was cut off (the process died, the
user cancelled, an approval never came) gets one here that says so. A history begins with a user's message.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from apps.agents.base import HistoryMessage
from apps.chat.models import Message
from apps.execution.models import Run
from apps.vocabulary import MessageId, RunId, ThreadId, UserId

UNFINISHED: Final = "This call was not finished."


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """The newest part of a branch that an agent is given: so many messages, so many bytes of text in UTF-8."""

    messages: int
    size: int  # bytes


History = Callable[[UserId, ThreadId, RunId], Sequence[HistoryMessage]]


def history_within(limits: HistoryLimits) -> History:
    """The history of a run, oldest message first. Synchronous.

    It ends before the message that the run answers; of a resumed run, with the answer that it goes on from.
    """

    def history(user_id: UserId, thread_id: ThreadId, run_id: RunId) -> Sequence[HistoryMessage]:
        asked = Run.objects.owned(user_id).filter(pk=run_id, thread_id=thread_id)
        found = asked.values_list("message_id", "after_message_id").first()
        if found is None:
            return ()
        message_id, after_id = found
        branch = _branch(user_id, thread_id, message_id, limits.messages, up_to=after_id)
        return _bounded(branch, limits)

    return history


def _branch(user_id: UserId, thread_id: ThreadId, message_id: str, most: int, up_to: str) -> list[Message]:
    """Up to `most` messages before this one, or up to the one that is named, newest first."""
    rows = Message.objects.filter(user_id=user_id, thread_id=thread_id)
    tree = {row[0]: row[1:] for row in rows.order_by("pk").values_list("message_id", "pk", "parent_id")}
    keys: list[int] = []
    parent_id = up_to
    if not up_to:
        _, parent_id = tree.pop(message_id, (0, ""))
    while parent_id in tree and len(keys) < most:
        # Taken out, so that ids which an agent used twice cannot lead in a circle.
        key, parent_id = tree.pop(parent_id)
        keys.append(key)
    found = rows.in_bulk(keys)
    return [found[key] for key in keys if key in found]


def _bounded(newest_first: Sequence[Message], limits: HistoryLimits) -> Sequence[HistoryMessage]:
    turns: list[list[HistoryMessage]] = []
    count = size = 0
    for message in newest_first:
        told_parts = told(MessageId(message.message_id), message.role, message.text, message.parts)
        count += len(told_parts)
        size += sum(_size(part) for part in told_parts)
        if count > limits.messages or size > limits.size:
            break
        turns.append(told_parts)
    while turns and (not turns[-1] or turns[-1][0].role != "user"):
        turns.pop()
    return tuple(part for turn in reversed(turns) for part in turn)


def _size(message: HistoryMessage) -> int:
    calls = sum(len(orjson.dumps(call)) for call in message.tool_calls)
    return len(message.text.encode()) + calls


def told(message_id: MessageId, role: str, text: str, parts: Sequence[Mapping[str, Any]]) -> list[HistoryMessage]:
    """One stored message as agents and AG-UI clients are told of it: its text and calls, then the calls' results."""
    if role == "user":
        files = [f"{part['name']} (id {part['id']})" for part in parts if part["type"] == "attachment"]
        said = f"{text}\n\n[Attached: {', '.join(files)}]" if files else text
        return [HistoryMessage("user", said, message_id)]
    calls = [part for part in parts if part["type"] == "tool_call"]
    if not text and not calls:
        return []
    spoken = HistoryMessage("assistant", text, message_id, tool_calls=tuple(_call(part) for part in calls))
    return [spoken, *(_result(message_id, part) for part in calls)]


def _call(part: Mapping[str, Any]) -> dict[str, Any]:
    try:
        is_object = isinstance(orjson.loads(part["arguments"]), dict)
    except orjson.JSONDecodeError:  # hidden from the log, or cut off
        is_object = False
    arguments = part["arguments"] if is_object else "{}"
    return {"id": part["id"], "type": "function", "function": {"name": part["name"], "arguments": arguments}}


def _result(message_id: MessageId, part: Mapping[str, Any]) -> HistoryMessage:
    text = UNFINISHED if part["result"] is None else part["result"]
    return HistoryMessage("tool", text, MessageId(f"{message_id}:{part['id']}"), tool_call_id=part["id"])
