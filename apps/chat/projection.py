"""What a thread looks like after its events: the reducer that server and tab share in meaning. Pure.

`ThreadView.apply` takes the entries of a user's stream, in the order of `seq`. Folding uses it to write a finished
run's messages, the snapshot to add what open runs have said so far, and the page does the same in the browser; so
snapshot at N + events after N = snapshot at M. Three rules carry it:

- A run's answers are a chain: the first follows the user's message (or the answer that a resumed run goes on
  from), each other one the answer before it. Every
  TEXT_MESSAGE is one message under its own id. Reasoning, tool calls and sub-agents become parts of the run's
  newest answer, or of an answer without text where there is none yet. A message's text comes before its parts,
  unless a part of type `text` says where it stands. `complete` is about the text; each part has its own. `within`
  names the sub-agent that did it.
- `leaf_id`, the end of the branch that is shown, goes to a user's message when its run is queued, follows the
  answers of that run as long as it is at their end, and goes wherever `turnout.thread.updated` puts it.
- A message that was queued behind a run (`after_run_id`) comes after that run's newest answer.

Events of a run that is settled already (its messages were folded) say nothing new, but for the interrupts that its
end has left open.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from apps.chat.messages import Json, MessageView, RunView, bounded_id, moment
from apps.execution.approvals import Closing
from apps.vocabulary import MessageId, RunId, ThreadId

OPEN: Final = frozenset({"queued", "running"})

_ERROR_STATUS: Final = {"timeout": "timed_out", "interrupted": "interrupted"}
_CLOSED_STATUS: Final = {str(how): str(how.status) for how in Closing}
_OUTCOME_STATUS: Final = {"success": "succeeded", "interrupt": "waiting", "cancelled": "cancelled"}


class ThreadView:
    """A thread's state. Start it with what is stored (`hold_*`), then `apply` the stream's entries in order."""

    def __init__(self, thread_id: ThreadId, title: str = "", leaf_id: MessageId | None = None) -> None:
        self.thread_id = thread_id
        self.title = title
        self.leaf_id = leaf_id
        self.deleted = False
        self.messages: dict[tuple[RunId, MessageId], MessageView] = {}
        self.runs: dict[RunId, RunView] = {}
        self.interrupts: dict[str, dict[str, Any]] = {}
        self._asked: dict[MessageId, MessageView] = {}
        self._parts: dict[tuple[RunId, str, str], dict[str, Any]] = {}

    def hold_message(self, message: MessageView) -> None:
        """Take a stored message."""
        self.messages[message.run_id, message.message_id] = message
        if message.role == "user":
            self._asked[message.message_id] = message

    def hold_part(self, run_id: RunId, message_id: MessageId, part: Json) -> None:
        """Take a part of a message that is held."""
        held = {key: [value] if key in _GROWING and isinstance(value, str) else value for key, value in part.items()}
        self.messages[run_id, message_id].parts.append(held)
        if "id" in part:
            self._parts[run_id, part["type"], part["id"]] = held

    def hold_run(self, run: RunView) -> None:
        """Take a stored run."""
        self.runs[run.run_id] = run

    def in_order(self) -> list[MessageView]:
        """The messages by when they began, and within a run by their place."""
        return sorted(self.messages.values(), key=lambda message: (message.created_at, message.run_id, message.place))

    def answers(self, run_id: RunId) -> list[MessageView]:
        """What a run has answered, in order."""
        answers = [row for row in self.messages.values() if row.run_id == run_id and row.place > 0]
        return sorted(answers, key=lambda row: row.place)

    def find(self, message_id: MessageId) -> MessageView | None:
        """The message of this id; of two that an agent gave one id, the later."""
        found = [row for row in self.messages.values() if row.message_id == message_id]
        return max(found, key=_order, default=None)

    def end_of(self, message: MessageView) -> MessageView:
        """The end of the branch that goes on from this message, by its newest child each time."""
        newest_child = {row.parent_id: row for row in self.in_order()}
        while (child := newest_child.pop(message.message_id, None)) is not None:
            message = child
        return message

    def going_on_after(self, message: MessageView) -> RunView | None:
        """The open run whose answers follow this message, if there is one."""
        runs = [run for run in self.runs.values() if not run.settled and run.status in OPEN]
        if message.role != "user":
            return next((run for run in runs if run.run_id == message.run_id), None)
        following = [run for run in runs if run.message_id == message.message_id]
        return max(following, key=lambda run: run.run_id, default=None)

    def compact(self) -> None:
        """Join what grew in pieces, so that a copy of the view costs by the message, not by the delta."""
        for message in self.messages.values():
            message.pieces = [message.text]
            for part in message.parts:
                part.update(
                    {key: ["".join(part[key])] for key in _GROWING & part.keys() if isinstance(part[key], list)}
                )

    def as_json(self) -> dict[str, Any]:
        """As a snapshot holds it, without position and times of the thread."""
        return {
            "thread": {"id": self.thread_id, "title": self.title, "leaf_id": self.leaf_id},
            "messages": [message.as_json() for message in self.in_order()],
            "runs": [run.as_json() for _, run in sorted(self.runs.items())],
            "interrupts": [interrupt for _, interrupt in sorted(self.interrupts.items())],
        }

    def apply(self, entry: Json) -> None:
        """Take one entry {thread_id, run_id, at, event} of the stream; entries of other threads change nothing."""
        if entry["thread_id"] != self.thread_id:
            return
        event, run_id = entry["event"], entry["run_id"]
        if event["type"] == "CUSTOM":
            self._custom(event["name"], event.get("value"), run_id)
        elif run_id is not None:
            self._run_event(event, RunId(run_id), entry["at"])

    def replay(self, entries: Sequence[Json], stored_leaf: MessageId | None, ending: RunId | None = None) -> None:
        """Apply entries that lie behind what is held, where the thread's row says that `stored_leaf` is its leaf.

        What wrote that row is among the entries: events up to the last of those have had their say about the leaf.
        `ending` is a run that is being folded, so that its end has not written it yet.
        """
        storing = (number for number, entry in enumerate(entries) if self._stores_the_leaf(entry, ending))
        last = max(storing, default=-1)
        for number, entry in enumerate(entries):
            self.apply(entry)
            if number <= last:
                self.leaf_id = stored_leaf

    def _stores_the_leaf(self, entry: Json, ending: RunId | None) -> bool:
        """Whether the thread's leaf was written in the transaction that appended this entry."""
        event = entry["event"]
        if entry["thread_id"] != self.thread_id:
            return False
        match event["type"], event.get("name"), event.get("value"):
            case "CUSTOM", "turnout.run.queued", {"message": _}:
                return True
            case "CUSTOM", "turnout.thread.updated", {"leaf_id": _}:
                return True
            case "RUN_FINISHED" | "RUN_ERROR", _, _:
                return bool(entry["run_id"] != ending)
        return False

    # What is not an agent's

    def _custom(self, name: str, value: Any, run_id: str | None) -> None:
        match name, value:
            case "turnout.run.queued", {"message": Mapping() as message} if run_id is not None:
                self._queued(RunId(run_id), message)
            case "turnout.thread.created" | "turnout.thread.updated", Mapping():
                self.title = value.get("title", self.title)
                self.leaf_id = value.get("leaf_id", self.leaf_id)
            case "turnout.thread.deleted", _:
                self.deleted = True
            case "turnout.interrupt.closed", {"interrupt_id": str(interrupt_id), "how": str(how)}:
                self.interrupts.pop(interrupt_id, None)
                waiting = self.runs.get(RunId(run_id or ""))
                if waiting is not None and waiting.status == "waiting":
                    waiting.status = _CLOSED_STATUS[how]

    def _queued(self, run_id: RunId, message: Json) -> None:
        message_id = MessageId(message["id"])
        if run_id not in self.runs:
            self.hold_run(RunView(run_id, message_id, agent=message.get("agent"), after_id=message.get("afterId")))
        if message_id not in self._asked:
            after_run_id = message.get("afterRunId")
            before = self.runs.get(after_run_id) if after_run_id else None
            self.hold_message(
                MessageView(
                    message_id,
                    run_id,
                    "user",
                    message["createdAt"],
                    place=0,
                    parent_id=(before and before.newest_id) or message.get("parentId"),
                    after_run_id=after_run_id,
                    parts=[dict(part) for part in message.get("parts", ())],
                    pieces=[message["content"]],
                )
            )
        self.leaf_id = message.get("afterId") or message_id

    # What is an agent's

    def _run_event(self, event: Json, run_id: RunId, at: float) -> None:
        run = self.runs.get(run_id)
        if run is None or (run.settled and event["type"] != "RUN_FINISHED"):
            return
        step = _STEPS.get(event["type"])
        if step is not None:
            step(self, run, event, at)

    def _started(self, run: RunView, _event: Json, _at: float) -> None:
        run.status = "running"

    def _finished(self, run: RunView, event: Json, _at: float) -> None:
        outcome = event.get("outcome") or {}
        if not run.settled:
            run.status = _OUTCOME_STATUS.get(outcome.get("type", "success"), "succeeded")
        for interrupt in outcome.get("interrupts") or ():
            self.interrupts[interrupt["id"]] = {"run_id": run.run_id, **interrupt}

    def _failed(self, run: RunView, event: Json, _at: float) -> None:
        run.error_code = event.get("code")
        run.error_message = event["message"]
        run.status = _ERROR_STATUS.get(run.error_code or "", "failed")

    def _text_start(self, run: RunView, event: Json, at: float) -> None:
        message = self._answer(run, event["messageId"], at)
        message.complete = False
        if message.parts or "subagentRunId" in event:
            message.parts.append({"type": "text"} | _within(event))

    def _text_content(self, run: RunView, event: Json, _at: float) -> None:
        message = self._open_text(run, event)
        if message is not None:
            message.pieces.append(event["delta"])

    def _text_end(self, run: RunView, event: Json, _at: float) -> None:
        message = self._open_text(run, event)
        if message is not None:
            message.complete = True

    def _open_text(self, run: RunView, event: Json) -> MessageView | None:
        message = self.messages.get((run.run_id, bounded_id(event["messageId"])))
        return message if message is not None and not message.complete else None

    def _reasoning_start(self, run: RunView, event: Json, at: float) -> None:
        part: dict[str, Any] = {"type": "reasoning", "id": event["messageId"], "text": []}
        self._add_part(run, event["messageId"], at, part | _within(event))

    def _reasoning_content(self, run: RunView, event: Json, _at: float) -> None:
        if part := self._open_part(run, "reasoning", event["messageId"]):
            part["text"].append(event["delta"])

    def _reasoning_end(self, run: RunView, event: Json, _at: float) -> None:
        if part := self._open_part(run, "reasoning", event["messageId"]):
            part["complete"] = True

    def _call_start(self, run: RunView, event: Json, at: float) -> None:
        call_id = event["toolCallId"]
        part = {
            "type": "tool_call",
            "id": call_id,
            "name": event["toolCallName"],
            "arguments": [],
            "result": None,
        }
        self._add_part(run, event.get("parentMessageId") or call_id, at, part | _within(event))

    def _call_args(self, run: RunView, event: Json, _at: float) -> None:
        if part := self._open_part(run, "tool_call", event["toolCallId"]):
            part["arguments"].append(event["delta"])

    def _call_result(self, run: RunView, event: Json, _at: float) -> None:
        if part := self._open_part(run, "tool_call", event["toolCallId"]):
            part["result"] = _content_text(event["content"])
            part["complete"] = True

    def _subagent_start(self, run: RunView, event: Json, at: float) -> None:
        child = event["subagentRunId"]
        part = {"type": "subagent", "id": child, "name": event["name"], "status": "running"}
        outer = event.get("parentSubagentRunId")
        self._add_part(run, child, at, part | ({"within": outer} if outer else {}))

    def _subagent_end(self, run: RunView, event: Json, _at: float) -> None:
        if part := self._open_part(run, "subagent", event["subagentRunId"]):
            outcome = (event.get("outcome") or {}).get("type", "success")
            part["status"] = "failed" if event["type"] == "SUBAGENT_ERROR" else outcome
            part["complete"] = True

    # Where it goes

    def _answer(self, run: RunView, any_id: str, at: float) -> MessageView:
        """The run's answer of this id, begun now if it is new."""
        message_id = bounded_id(any_id)
        message = self.messages.get((run.run_id, message_id))
        return message if message is not None else self._begin(run, message_id, at)

    def _begin(self, run: RunView, message_id: MessageId, at: float) -> MessageView:
        before = self._before(run)
        message = MessageView(
            message_id,
            run.run_id,
            "assistant",
            max(moment(at), before.created_at if before else ""),  # whatever clocks did
            place=run.answers + 1,
            parent_id=run.newest_id or run.after_id or run.message_id,
        )
        self.hold_message(message)
        if self.leaf_id == message.parent_id:
            self.leaf_id = message_id
        run.answers += 1
        run.newest_id = message_id
        for waiting in self._asked.values():
            if waiting.after_run_id == run.run_id:
                waiting.parent_id = message_id
        return message

    def _before(self, run: RunView) -> MessageView | None:
        if run.newest_id is not None:
            return self.messages[run.run_id, run.newest_id]
        before = None if run.after_id is None else self.find(run.after_id)
        return before or self._asked.get(run.message_id)

    def _add_part(self, run: RunView, home_id: str, at: float, part: dict[str, Any]) -> None:
        home = self.messages.get((run.run_id, bounded_id(home_id)))
        if home is None and run.newest_id is not None:
            home = self.messages[run.run_id, run.newest_id]
        if home is None:
            home = self._begin(run, bounded_id(home_id), at)
        part["complete"] = False
        home.parts.append(part)
        self._parts[run.run_id, part["type"], part["id"]] = part

    def _open_part(self, run: RunView, kind: str, part_id: str) -> dict[str, Any] | None:
        part = self._parts.get((run.run_id, kind, part_id))
        return part if part is not None and not part["complete"] else None


_STEPS: Final[Mapping[str, Callable[[ThreadView, RunView, Json, float], None]]] = {
    "RUN_STARTED": ThreadView._started,  # noqa: SLF001 - the table belongs to the class
    "RUN_FINISHED": ThreadView._finished,  # noqa: SLF001
    "RUN_ERROR": ThreadView._failed,  # noqa: SLF001
    "TEXT_MESSAGE_START": ThreadView._text_start,  # noqa: SLF001
    "TEXT_MESSAGE_CONTENT": ThreadView._text_content,  # noqa: SLF001
    "TEXT_MESSAGE_END": ThreadView._text_end,  # noqa: SLF001
    "REASONING_MESSAGE_START": ThreadView._reasoning_start,  # noqa: SLF001
    "REASONING_MESSAGE_CONTENT": ThreadView._reasoning_content,  # noqa: SLF001
    "REASONING_MESSAGE_END": ThreadView._reasoning_end,  # noqa: SLF001
    "TOOL_CALL_START": ThreadView._call_start,  # noqa: SLF001
    "TOOL_CALL_ARGS": ThreadView._call_args,  # noqa: SLF001
    "TOOL_CALL_RESULT": ThreadView._call_result,  # noqa: SLF001
    "SUBAGENT_STARTED": ThreadView._subagent_start,  # noqa: SLF001
    "SUBAGENT_FINISHED": ThreadView._subagent_end,  # noqa: SLF001
    "SUBAGENT_ERROR": ThreadView._subagent_end,  # noqa: SLF001
}


_GROWING: Final = frozenset({"text", "arguments"})


def _order(row: MessageView) -> tuple[str, RunId, int]:
    return row.created_at, row.run_id, row.place


def _within(event: Json) -> dict[str, Any]:
    """The sub-agent that did it, where one did."""
    return {"within": event["subagentRunId"]} if event.get("subagentRunId") else {}


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return orjson.dumps(content).decode()
