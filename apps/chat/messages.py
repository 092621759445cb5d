"""What a thread view holds: messages and runs with what is known of them so far. Pure values."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from apps.chat.models import MESSAGE_ID_LENGTH
from apps.vocabulary import MessageId, RunId

Json = Mapping[str, Any]


def moment(seconds: float) -> str:
    """A Unix time as snapshots hold it: ISO 8601 in UTC with milliseconds, text that sorts as the time does."""
    return moment_of(datetime.fromtimestamp(round(seconds, 3), UTC))


def moment_of(at: datetime) -> str:
    """As `moment`, of an aware datetime."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class MessageView:
    """One message with what it holds so far. `place` counts within its run; 0 is the user's message."""

    message_id: MessageId
    run_id: RunId
    role: str
    created_at: str
    place: int
    parent_id: MessageId | None = None
    after_run_id: RunId | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)  # joined when asked: adding to one text is quadratic
    complete: bool = True

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def as_json(self) -> dict[str, Any]:
        """As a snapshot holds it."""
        return {
            "id": self.message_id,
            "parent_id": self.parent_id,
            "run_id": self.run_id,
            "after_run_id": self.after_run_id,
            "role": self.role,
            "text": self.text,
            "parts": [_joined(part) for part in self.parts],
            "complete": self.complete,
            "created_at": self.created_at,
        }


@dataclass(slots=True)
class RunView:
    """One run. `message_id` is the user's message that it answers; `settled`: its answers are stored.

    `after_id` is the answer that a resumed run goes on from.
    """

    run_id: RunId
    message_id: MessageId
    status: str = "queued"
    agent: str | None = None
    error_code: str | None = None
    settled: bool = False
    answers: int = 0
    newest_id: MessageId | None = None
    error_message: str = ""
    after_id: MessageId | None = None

    def as_json(self) -> dict[str, Any]:
        """As a snapshot holds it."""
        return {
            "id": self.run_id,
            "message_id": self.message_id,
            "status": self.status,
            "agent": self.agent,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "after_id": self.after_id,
        }


def bounded_id(any_id: str) -> MessageId:
    """An agent's message id as it can be stored: a very long one is known by its SHA-256."""
    if len(any_id) > MESSAGE_ID_LENGTH:
        return MessageId(hashlib.sha256(any_id.encode()).hexdigest())
    return MessageId(any_id)


def _joined(part: Json) -> dict[str, Any]:
    return {key: "".join(value) if isinstance(value, list) else value for key, value in part.items()}
