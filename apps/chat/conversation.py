"""What users do in the chat, one method a command. Synchronous; each owns its transaction.

A command that came over the socket, or as `POST /api/runs`, has an id: its receipt is taken first, in the same
transaction, so that the same command never acts twice, on however many connections it arrives, and is answered again
from the receipt. Locks follow the one order: receipt, budget, thread, run, ledger, stream.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from ag_ui.core import CustomEvent
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from apps.chat import attachments
from apps.chat.messages import MessageView, moment_of
from apps.chat.models import COMMAND_ID_LENGTH, CommandReceipt, Message, Thread, not_found
from apps.chat.projection import OPEN, ThreadView
from apps.chat.snapshot import read_outline
from apps.execution.admission import DAY_S, OWN_RETRY_S, RunRequest
from apps.execution.approvals import Answer, Closing
from apps.execution.models import Run
from apps.execution.service import RunService
from apps.realtime.log import EventLog
from apps.realtime.protocol import (
    Command,
    IfBusy,
    RunCancel,
    RunStart,
    ToolDecide,
    replayed,
    reply_error,
    reply_ok,
)
from apps.realtime.values import LogEntry
from apps.vocabulary import ErrorCode, Identity, MessageId, Refusal, RunId, ThreadId, UserId, new_id

logger = logging.getLogger(__name__)

UNAVAILABLE_RETRY_S: Final = 1.0
AUTOMATIC_TITLE_LENGTH: Final = 60  # characters
ERASING_STEPS: Final = 8  # of a deleted thread, before the answer; 2,048 rows of the log


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatLimits:
    """Bounds of every user alike; what differs by plan is in `PlanLimits`. Filled by the composition root."""

    text_bytes: int  # of a message's text, as JSON
    receipt_hours: int  # how long a command id is remembered
    default_agent: str = "assistant"


class Conversation:
    """See the module. `execute` answers commands with a reply frame; the other methods raise Refusal."""

    def __init__(self, *, runs: RunService, log: EventLog, limits: ChatLimits) -> None:
        self._runs = runs
        self._log = log
        self._limits = limits

    @property
    def default_agent(self) -> str:
        """The agent that answers where none was named."""
        return self._limits.default_agent

    def most_open_runs(self, identity: Identity) -> int:
        """How many runs of this user may be open at once, by their plan."""
        return self._runs.plan_of(identity).open_runs_per_user

    # -- commands with an id

    def execute(self, identity: Identity, command: Command) -> str:
        """Carry the command out, at most once for its id; the text of its reply frame. Raises nothing."""
        try:
            with transaction.atomic():
                return self._once(identity, command)
        except (OperationalError, InterfaceError) as error:
            logger.warning("the database could not take a command: %s", error)
            refusal = Refusal(
                ErrorCode.UNAVAILABLE, "the database cannot be reached; send this again", {}, UNAVAILABLE_RETRY_S
            )
        except Exception:
            reference = new_id()
            logger.exception("a command failed (reference %s)", reference)
            refusal = Refusal(
                ErrorCode.INTERNAL, f"the server made a mistake; its reference is {reference}", {}, UNAVAILABLE_RETRY_S
            )
        return reply_error(command.id, refusal)

    def _once(self, identity: Identity, command: Command) -> str:
        digest = _digest(command)
        earlier = CommandReceipt.objects.claim(identity.user_id, command.id, digest, self._forgotten_before())
        if earlier is not None:
            if earlier.digest != digest:
                refusal = Refusal(
                    ErrorCode.ID_REUSED, "this id was used for another command; every command needs an id of its own"
                )
                return reply_error(command.id, refusal)
            return replayed(earlier.reply)
        try:
            with transaction.atomic():  # a savepoint: a refusal takes back everything but its receipt
                reply = reply_ok(command.id, self._act(identity, command))
        except Refusal as refusal:
            reply = reply_error(command.id, refusal)
            if not refusal.code.remembered:
                transaction.set_rollback(True)
                return reply
        CommandReceipt.objects.remember(identity.user_id, command.id, reply)
        return reply

    def _act(self, identity: Identity, command: Command) -> Mapping[str, Any]:
        match command:
            case RunStart():
                return self.start_run(identity, command)
            case RunCancel():
                return self.cancel_run(identity, command.run_id)
            case ToolDecide():
                return self.decide_tool(identity, command)

    def forget_receipts(self) -> None:
        """Delete the receipts of all users that are too old to answer a repeated command."""
        CommandReceipt.objects.all().forget(self._forgotten_before())

    def _forgotten_before(self) -> datetime:
        return timezone.now() - timedelta(hours=self._limits.receipt_hours)

    @transaction.atomic
    def start_run(self, identity: Identity, command: RunStart) -> dict[str, Any]:
        """Say something in a thread, or repeat a run, and queue the run that answers. The user's message, the run and
        its event are one transaction.

        Raises Refusal (not_found, thread_busy, input_too_large, quota_exceeded, and what admission refuses).
        """
        user_id = identity.user_id
        self._runs.lock_user(user_id)
        CommandReceipt.objects.filter(user_id=user_id).forget(self._forgotten_before())
        thread = Thread.objects.owned(user_id).lock(command.thread_id)
        run_id = RunId(new_id())
        if command.retry_of is None:
            message = self._said(identity, thread, run_id, command)
            agent = command.agent or self._limits.default_agent
        else:
            asked = self._runs.stored_request(user_id, command.retry_of)
            found = Message.objects.filter(user_id=user_id, thread=thread, role="user", message_id=asked.message_id)
            message = found.first() or not_found()
            agent = command.agent or asked.agent
        admission = self._runs.admit(
            identity,
            RunRequest(
                run_id=run_id,
                thread_id=ThreadId(thread.pk),
                agent=agent,
                text=message.text,
                message_id=MessageId(message.message_id),
                message=_as_event(message, agent),
                attachments=[part["id"] for part in message.parts],
                if_busy=command.if_busy,
                retry_of=command.retry_of,
            ),
        )
        if command.retry_of is None:
            message.save(force_insert=True)
            thread.stored_bytes += message.stored_bytes
        self._moved_on(thread, message)
        return {
            "run_id": run_id,
            "thread_id": thread.pk,
            "message_id": message.message_id,
            "place": admission.place,
        }

    @transaction.atomic
    def cancel_run(self, identity: Identity, run_id: RunId) -> dict[str, Any]:
        """Stop a run. Raises Refusal (not_found, run_finished)."""
        return {"run_id": run_id, "status": self._runs.cancel(identity.user_id, run_id)}

    def describe_run(self, identity: Identity, run_id: RunId) -> dict[str, Any]:
        """One run. Raises Refusal(not_found), also when its thread was deleted."""
        described = self._runs.describe(identity.user_id, run_id)
        Thread.objects.owned(identity.user_id).get(described["thread_id"])
        moments = {name: at for name, at in described.items() if name.endswith("_at") and at is not None}
        return described | {name: moment_of(datetime.fromisoformat(at)) for name, at in moments.items()}

    @transaction.atomic
    def decide_tool(self, identity: Identity, command: ToolDecide) -> dict[str, Any]:
        """Answer a tool call that waits for approval, and queue the run that goes on from the answer. What is decided
        is the call as it was stored.

        Raises Refusal (not_found, already_decided, and what admission refuses; then the call waits on).
        """
        user_id = identity.user_id
        self._runs.lock_user(user_id)
        call = self._runs.open_call(user_id, command.interrupt_id)
        thread = Thread.objects.owned(user_id).lock(ThreadId(call.thread_id))
        asked = self._runs.stored_request(user_id, RunId(call.run_id))
        answers = Message.objects.filter(user_id=user_id, run_id=call.run_id, place__gt=0).order_by("place")
        last = answers.values_list("message_id", flat=True).last()
        run_id = RunId(new_id())
        request = dataclasses.replace(
            asked,
            run_id=run_id,
            message={**asked.message, "afterId": last},
            if_busy=IfBusy.ENQUEUE,
            parent_run_id=RunId(call.run_id),
            retry_of=None,
            after_message_id=None if last is None else MessageId(last),
        )
        how = Closing.APPROVED if command.approve else Closing.DENIED
        admission = self._runs.resume(identity, call, Answer(how, command.reason or "", run_id), request)
        thread.leaf_id, thread.updated_at = last or asked.message_id, timezone.now()
        thread.save(update_fields=["leaf_id", "updated_at"])
        return {"run_id": run_id, "thread_id": thread.pk, "place": admission.place}

    # -- threads

    def create_thread(self, identity: Identity, title: str = "") -> Thread:
        """A new thread. Raises Refusal(quota_exceeded)."""
        return self._create_thread(identity, title, None)

    @transaction.atomic
    def open_thread(self, identity: Identity, client_key: str) -> Thread:
        """The user's thread that one of their clients calls so, made now if there is none. Raises
        Refusal(quota_exceeded).
        """
        self._runs.lock_user(identity.user_id)
        there = Thread.objects.owned(identity.user_id).rows.filter(client_key=client_key).first()
        return there if there is not None else self._create_thread(identity, "", client_key)

    @transaction.atomic
    def _create_thread(self, identity: Identity, title: str, client_key: str | None) -> Thread:
        user_id = identity.user_id
        self._runs.lock_user(user_id)  # what is counted must not change until it is written
        most = self._runs.plan_of(identity).threads_per_user
        if Thread.objects.owned(user_id).rows.count() >= most:
            text = f"you may keep {most} threads; delete one to start another"
            raise Refusal(ErrorCode.QUOTA_EXCEEDED, text, {"limit": most}, OWN_RETRY_S)
        thread = Thread.objects.create(user_id=user_id, title=title, client_key=client_key)
        self._tell(thread, "turnout.thread.created", describe_thread(thread))
        return thread

    @transaction.atomic
    def change_thread(
        self, identity: Identity, thread_id: ThreadId, *, title: str | None = None, leaf_id: MessageId | None = None
    ) -> Thread:
        """Rename a thread, show another of its branches (the one that goes on from `leaf_id`), or both.

        Raises Refusal(not_found).
        """
        thread = Thread.objects.owned(identity.user_id).lock(thread_id)
        changes: dict[str, Any] = {}
        if title is not None:
            thread.title = changes["title"] = title
        if leaf_id is not None:
            view = read_outline(identity.user_id, thread_id)
            shown = view.find(leaf_id) or not_found()
            thread.leaf_id = changes["leaf_id"] = view.end_of(shown).message_id
        if changes:
            thread.updated_at = timezone.now()
            thread.save(update_fields=["title", "leaf_id", "updated_at"])
            self._tell(thread, "turnout.thread.updated", {"id": thread.pk, **changes})
        return thread

    def delete_thread(self, identity: Identity, thread_id: ThreadId) -> None:
        """Delete a thread with all that was said in it: messages, runs' inputs, and the contents of its events.

        From the first commit on nobody can open, find or export it. Its events are taken out of the log in steps; what
        of a long thread does not fit in here, the process that takes the next turn of retention goes on with. A run
        that is going on is cancelled; what it still says before it stops goes the same way. Raises Refusal(not_found).
        """
        self._delete_thread(identity.user_id, thread_id)
        self._log.erase(identity.user_id, thread_id, ERASING_STEPS)

    @transaction.atomic
    def _delete_thread(self, user_id: UserId, thread_id: ThreadId) -> None:
        self._runs.lock_user(user_id)
        thread = Thread.objects.owned(user_id).lock(thread_id)
        self._runs.cancel_in_thread(user_id, thread_id)
        Run.objects.owned(user_id).filter(thread_id=thread_id).update(text="", message={}, attachments=[])
        attachments.forget_thread(user_id, thread_id)
        self._log.begin_erasure(user_id, thread_id)
        self._tell(thread, "turnout.thread.deleted", {"id": thread_id})
        thread.delete()

    # -- inside

    def _said(self, identity: Identity, thread: Thread, run_id: RunId, command: RunStart) -> Message:
        user_id, plan, text = identity.user_id, self._runs.plan_of(identity), command.text or ""
        if len(orjson.dumps(text)) > self._limits.text_bytes:
            most = self._limits.text_bytes
            raise Refusal(ErrorCode.INPUT_TOO_LARGE, f"`text` has more than {most} bytes as JSON")
        if Message.objects.filter(thread=thread).count() >= plan.messages_per_thread:
            most = plan.messages_per_thread
            text = f"a thread holds {most} messages; go on in a new one"
            raise Refusal(ErrorCode.QUOTA_EXCEEDED, text, {"limit": most}, DAY_S)  # it has no more room by itself
        if Thread.objects.stored_bytes(user_id) + len(text.encode()) > plan.stored_bytes_per_user:
            most = plan.stored_bytes_per_user
            full = f"your messages may have {most} bytes; delete a thread to make room"
            raise Refusal(ErrorCode.QUOTA_EXCEEDED, full, {"limit": most}, OWN_RETRY_S)
        parent_id, after_run_id = _place(user_id, thread, command)
        return Message(
            thread=thread,
            user_id=user_id,
            message_id=new_id(),
            parent_id=parent_id or "",
            run_id=run_id,
            after_run_id=after_run_id or "",
            role="user",
            text=text,
            parts=attachments.attach(user_id, ThreadId(thread.pk), command.attachments),
            created_at=_whole_milliseconds(timezone.now()),
        )

    def _moved_on(self, thread: Thread, message: Message) -> None:
        thread.leaf_id, thread.updated_at = message.message_id, timezone.now()
        if not thread.title and (title := automatic_title(message.text)):
            thread.title = title
            self._tell(thread, "turnout.thread.updated", {"id": thread.pk, "title": title})
        thread.save(update_fields=["leaf_id", "title", "updated_at", "stored_bytes"])

    def _tell(self, thread: Thread, name: str, value: Mapping[str, Any]) -> None:
        event = CustomEvent(name=name, value=dict(value))
        self._log.append(UserId(thread.user_id), [LogEntry(event, ThreadId(thread.pk))])


def describe_thread(thread: Thread) -> dict[str, Any]:
    """A thread as events and the API show it."""
    return {
        "id": thread.pk,
        "title": thread.title,
        "leaf_id": thread.leaf_id or None,
        "created_at": moment_of(thread.created_at),
        "updated_at": moment_of(thread.updated_at),
    }


def automatic_title(text: str) -> str:
    """A title for a thread that has none: the beginning of what was said first."""
    words = " ".join(text.split())
    if len(words) <= AUTOMATIC_TITLE_LENGTH:
        return words
    whole_words, _, _ = words[: AUTOMATIC_TITLE_LENGTH - 1].rpartition(" ")
    return (whole_words or words[: AUTOMATIC_TITLE_LENGTH - 1]) + "…"


def _place(user_id: UserId, thread: Thread, command: RunStart) -> tuple[str | None, RunId | None]:
    """What a new message follows, and the open run behind whose answers it waits."""
    if command.parent_message_id is None:
        going_on = Run.objects.owned(user_id).filter(thread_id=thread.pk, status__in=sorted(OPEN))
        if command.if_busy is IfBusy.REJECT or not going_on.exists():
            return thread.leaf_id, None
    view = read_outline(user_id, ThreadId(thread.pk))
    if command.parent_message_id is not None:
        named = view.find(command.parent_message_id) or not_found()
        if named.role == "user":  # the new message stands in its place; so even the first one can be edited
            return named.parent_id, named.after_run_id
        return _end(view, named)
    if command.if_busy is IfBusy.ROLLBACK:
        first = min(run.run_id for run in view.runs.values() if run.status in OPEN)
        asked = view.find(view.runs[first].message_id) or not_found()
        return asked.parent_id, None
    leaf = None if view.leaf_id is None else view.find(view.leaf_id)
    return (None, None) if leaf is None else _end(view, leaf)


def _end(view: ThreadView, message: MessageView) -> tuple[str | None, RunId | None]:
    run = view.going_on_after(message)
    if run is None:
        return message.message_id, None
    return run.newest_id or run.message_id, run.run_id


def _as_event(message: Message, agent: str) -> dict[str, Any]:
    """The user's message as AG-UI has it, with what a tab needs to place it."""
    return {
        "id": message.message_id,
        "role": "user",
        "content": message.text,
        "parts": message.parts,
        "parentId": message.parent_id or None,
        "afterRunId": message.after_run_id or None,
        "createdAt": moment_of(message.created_at),
        "agent": agent,
    }


def _digest(command: Command) -> str:
    assert len(command.id) <= COMMAND_ID_LENGTH
    content = {**asdict(command), "id": type(command).__name__}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _whole_milliseconds(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
