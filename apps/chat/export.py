"""A thread to take away: as Markdown, the branch that is shown; as JSON, all that the snapshot holds. Pure."""

from typing import Any

from apps.chat.messages import MessageView
from apps.chat.projection import ThreadView
from apps.chat.snapshot import Snapshot
from apps.vocabulary import MessageId


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """The whole tree. Without a position: what is exported is not continued."""
    exported = snapshot.as_json()
    del exported["position"], exported["seq"]
    return exported


def as_markdown(snapshot: Snapshot) -> str:
    """The shown branch, oldest message first. Texts stand as they were written, tool calls as one line each."""
    view = snapshot.view
    title = " ".join(view.title.split()) or "Untitled thread"
    turns = [_turn(view, message) for message in shown_branch(view)]
    return "\n\n".join([f"# {title}", f"Started {snapshot.created_at}", *turns]) + "\n"


def shown_branch(view: ThreadView) -> list[MessageView]:
    """The messages from the root to the leaf."""
    return branch_to(view, view.leaf_id)


def branch_to(view: ThreadView, message_id: MessageId | None) -> list[MessageView]:
    """The messages from the root to this one; none where there is no such message."""
    by_id = {message.message_id: message for message in view.in_order()}
    branch: list[MessageView] = []
    message = None if message_id is None else by_id.pop(message_id, None)
    while message is not None:
        branch.append(message)
        message = None if message.parent_id is None else by_id.pop(message.parent_id, None)
    return branch[::-1]


def _turn(view: ThreadView, message: MessageView) -> str:
    if message.role == "user":
        speaker = "You"
    else:
        run = view.runs.get(message.run_id)
        speaker = (run and run.agent) or "Assistant"
    calls = [f"- called `{part['name']}`" for part in message.parts if part["type"] == "tool_call"]
    return "\n\n".join(block for block in (f"## {speaker}", message.text, "\n".join(calls)) if block)
