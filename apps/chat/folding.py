"""Folding: a run's events become messages, in the very transaction that commits its terminal event.

So there is no moment at which a run has ended and its answer is neither in the log nor among the messages. It runs in
the log's writer, for which all users wait; what it reads is bounded by what one run may log.
"""

from collections.abc import Sequence
from datetime import datetime

from django.utils import timezone

from apps.chat.messages import MessageView
from apps.chat.models import Message, Thread
from apps.chat.snapshot import read_outline
from apps.realtime.log import EventLog
from apps.realtime.values import EndedRun
from apps.vocabulary import ThreadId, UserId


class MessageFold:
    """The participant that the chat sends into the log's commits. Holds nothing of a run."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def lock(self, ended: Sequence[EndedRun]) -> None:
        """Lock the threads of all ended runs, in the order of their ids."""
        threads = Thread.objects.select_for_update(no_key=True).filter(pk__in={run.thread_id for run in ended})
        list(threads.order_by("pk"))

    def write(self, ended: Sequence[EndedRun]) -> None:
        """Write the messages of each run, and move its thread's leaf to them if they are at its end.

        Of a thread that was deleted while the run went on, nothing is kept: its late events are blanked.
        """
        for run in ended:
            if Thread.objects.filter(pk=run.thread_id, user_id=run.user_id).exists():
                _fold(run)
            else:
                self._log.blank_thread(run.user_id, run.thread_id)


def _fold(run: EndedRun) -> None:
    view = read_outline(run.user_id, run.thread_id, ending=run.run_id)
    answers = view.answers(run.run_id)
    Message.objects.bulk_create([_row(run.user_id, run.thread_id, answer) for answer in answers])
    if answers:
        Message.objects.follow(run.user_id, run.run_id, answers[-1].message_id)
    thread = Thread.objects.filter(pk=run.thread_id, user_id=run.user_id)
    thread.update(leaf_id=view.leaf_id or "", updated_at=timezone.now())


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
