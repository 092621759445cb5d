"""Folding: a run's events become messages, in the very transaction that commits its terminal event.

So there is no moment at which a run has ended and its answer is neither in the log nor among the messages. That
transaction is the log's writer, for which all users wait. So what a run has said before its end is read and reduced
beside it (`prepare`), and the writer reads only what came since: what waited in the publisher, however long the run.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F
from django.utils import timezone

from apps.chat.messages import MessageView, RunView, moment_of
from apps.chat.models import Message, Thread
from apps.chat.projection import ThreadView
from apps.execution.models import Run
from apps.realtime.locking import lock_free
from apps.realtime.log import EventLog
from apps.realtime.values import EndedRun, RunLease
from apps.vocabulary import MessageId, RunId, ThreadId, UserId


@dataclass(frozen=True, slots=True)
class PreparedFold:
    """What a run has said up to `upto`. Never changed: a commit may be tried again."""

    view: ThreadView
    upto: int


class MessageFold:
    """The participant that the chat sends into the log's commits. Holds nothing of a run."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def prepare(self, lease: RunLease) -> PreparedFold | None:
        """Reduce what the run has logged so far; None when its thread is gone. For a database thread of its own."""
        logged = self._log.read_logged(lease.user_id, lease.run_id)
        # Read after the log: a leaf that was moved since has its entry behind `upto`, and is put right by it.
        thread = Thread.objects.filter(pk=lease.thread_id, user_id=lease.user_id).first()
        view = None if thread is None else _empty_view(lease.user_id, lease.run_id, thread)
        if thread is None or view is None:
            return None
        view.replay(logged.entries, _leaf_of(thread), lease.run_id)
        view.compact()
        return PreparedFold(view, logged.upto)

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """Lock the threads of all ended runs, in the order of their ids."""
        threads = Thread.objects.select_for_update(no_key=True).filter(pk__in={run.thread_id for run in ended})
        list(threads.order_by("pk"))

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        """As `lock`, but wait for nobody: returns the runs whose thread somebody else holds."""
        held = lock_free(Thread.objects.all(), {run.thread_id for run in ended})
        return frozenset(run.run_id for run in ended if run.thread_id in held)

    def write(self, ended: Sequence[EndedRun]) -> None:
        """Write the messages of each run, and move its thread's leaf to them if they are at its end.

        Of a thread that was deleted while the run went on, nothing is kept: its erasure, which waits for this end,
        takes the late events too.
        """
        for run in ended:
            thread = Thread.objects.filter(pk=run.thread_id, user_id=run.user_id).first()
            if thread is not None:
                self._fold(run, thread)

    def ask_again(self, user_id: UserId, thread_id: ThreadId, message_id: MessageId) -> bool:
        """Make a question the thread's leaf again, as asking it anew would; False when it was deleted."""
        if not Message.objects.filter(
            user_id=user_id, thread_id=thread_id, message_id=message_id, role="user"
        ).exists():
            return False
        return bool(
            Thread.objects.filter(pk=thread_id, user_id=user_id).update(leaf_id=message_id, updated_at=timezone.now())
        )

    def _fold(self, run: EndedRun, thread: Thread) -> None:
        view: ThreadView | None
        if isinstance(run.prepared, PreparedFold):
            view, after = deepcopy(run.prepared.view), run.prepared.upto
        else:
            view, after = _empty_view(run.user_id, run.run_id, thread), 0
        if view is None:
            return
        entries = self._log.read_logged(run.user_id, run.run_id, after).entries
        view.replay(entries, _leaf_of(thread), run.run_id)
        answers = view.answers(run.run_id)
        rows = Message.objects.bulk_create([_row(run.user_id, run.thread_id, answer) for answer in answers])
        if answers:
            Message.objects.follow(run.user_id, run.run_id, answers[-1].message_id)
        Thread.objects.filter(pk=thread.pk).update(
            leaf_id=view.leaf_id or "",
            updated_at=timezone.now(),
            stored_bytes=F("stored_bytes") + sum(row.stored_bytes for row in rows),
        )


def _leaf_of(thread: Thread) -> MessageId | None:
    return MessageId(thread.leaf_id) if thread.leaf_id else None


def _empty_view(user_id: UserId, run_id: RunId, thread: Thread) -> ThreadView | None:
    """The thread as this run knows it: its leaf, and the message that the run answers. None when that is gone."""
    run = Run.objects.owned(user_id).filter(pk=run_id).values_list("message_id", "agent", "after_message_id").first()
    if run is None:
        return None
    message_id, agent, after_id = run
    asked = Message.objects.filter(user_id=user_id, thread=thread, message_id=message_id, role="user").first()
    if asked is None:
        return None
    view = ThreadView(ThreadId(thread.pk), leaf_id=_leaf_of(thread))
    view.hold_run(
        RunView(run_id, MessageId(message_id), agent=agent, after_id=MessageId(after_id) if after_id else None)
    )
    view.hold_message(
        MessageView(MessageId(message_id), RunId(asked.run_id), "user", moment_of(asked.created_at), place=0)
    )
    return view


def _row(user_id: UserId, thread_id: ThreadId, answer: MessageView) -> Message:
    return Message(
        thread_id=thread_id,
        user_id=user_id,
        message_id=answer.message_id,
        parent_id=answer.parent_id or "",
        run_id=answer.run_id,
        place=answer.place,
        role=answer.role,
        text=answer.text,
        parts=answer.as_json()["parts"],
        created_at=datetime.fromisoformat(answer.created_at),
    )
