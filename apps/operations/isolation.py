"""Does every stored row and event belong to the user in whose hands it is? Only `--fix` changes anything.

The log is compared with the ledgers, since a run's owner is written into its ledger before the first event.
What the old bridge wrote into strangers' streams is marked there (`leaked_from`), and stays a finding until it
is blanked.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import batched
from typing import Any

import orjson
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q

from apps.chat.models import Attachment, CommandReceipt, Message, Thread
from apps.execution.models import Run
from apps.operations.auditing import Audit, Check, Tally
from apps.operations.streams import chain_fault
from apps.realtime.erasing import REMOVED, blank_segments
from apps.realtime.models import RunLedger, Segment, Stream

CHUNK = 500  # rows read at once; what an audit holds does not grow with the log
ASK_A_PERSON = "keep a copy of the rows named above, then find out which path wrote them"


def isolation_audit() -> Audit:
    """All checks of `manage.py audit_isolation`."""
    return Audit(
        "Isolation",
        (
            Check("Events are their owner's", _foreign_events, ASK_A_PERSON),
            Check("No leaked events", _leaked_segments, "run it with --fix to blank them", _blank_leaks),
            Check("Streams are whole", _broken_streams, "restore these streams, or give them a new epoch"),
            Check("Ledgers agree with runs", _foreign_ledgers, ASK_A_PERSON),
            Check("Runs are in own threads", _foreign_runs, ASK_A_PERSON),
            Check("Messages are in own threads", _foreign_messages, ASK_A_PERSON),
            Check("Attachments are in own threads", _foreign_attachments, ASK_A_PERSON),
            Check("Replies name own things", _foreign_replies, ASK_A_PERSON),
        ),
    )


def _foreign_events() -> Tally:
    tally = Tally("events")
    segments = Segment.objects.filter(leaked_from=None).order_by("pk").values_list("user_id", "payload")
    for chunk in batched(segments.iterator(chunk_size=CHUNK), CHUNK):
        entries = [(user_id, entry) for user_id, payload in chunk for entry in orjson.loads(payload)]
        tally.seen += len(entries)
        runs = _owners_of_runs(entry["run_id"] for _, entry in entries)
        threads = _owners_of_threads(entry["thread_id"] for _, entry in entries)
        for user_id, entry in entries:
            run_id, thread_id = entry["run_id"], entry["thread_id"]
            # A run always has a ledger, so an unknown one is as bad as a stranger's; a thread may be deleted.
            unproven = run_id is not None and runs.get(run_id) != user_id
            if unproven or threads.get(thread_id, user_id) != user_id:
                tally.add_wrong(f"seq {entry['seq']} of user {user_id}")
    return tally


def _leaked_segments() -> Tally:
    tally = Tally("rows of the log", seen=Segment.objects.count())
    blanked = 0
    for row in Segment.objects.exclude(leaked_from=None).order_by("pk").iterator(chunk_size=CHUNK):
        if all(entry["event"] == REMOVED for entry in orjson.loads(row.payload)):
            blanked += 1
        else:
            tally.add_wrong(f"events {row.first_seq}-{row.last_seq} of user {row.user_id} are user {row.leaked_from}'s")
    tally.note = f"{blanked} leaked ones are blanked" if blanked else ""
    return tally


def _blank_leaks() -> None:
    leaked = Segment.objects.exclude(leaked_from=None).order_by("pk").values_list("pk", flat=True)
    for chunk in batched(leaked.iterator(chunk_size=CHUNK), CHUNK):
        with transaction.atomic():
            blank_segments(chunk)


def _broken_streams() -> Tally:
    tally = Tally("streams")
    for user_id in Stream.objects.order_by("user_id").values_list("user_id", flat=True).iterator():
        tally.seen += 1
        if fault := chain_fault(user_id):
            tally.add_wrong(f"user {user_id}: {fault}")
    return tally


def _foreign_ledgers() -> Tally:
    tally = Tally("ledgers", seen=RunLedger.objects.count())
    agreeing = Run.objects.filter(pk=OuterRef("run_id"), user_id=OuterRef("user_id"), thread_id=OuterRef("thread_id"))
    for run_id in _names(RunLedger.objects.exclude(Exists(agreeing)), "run_id"):
        tally.add_wrong(f"run {run_id}")
    return tally


def _foreign_runs() -> Tally:
    tally = Tally("runs", seen=Run.objects.count())
    foreign = Thread.objects.filter(pk=OuterRef("thread_id")).exclude(user_id=OuterRef("user_id"))
    for run_id in _names(Run.objects.filter(Exists(foreign)), "pk"):
        tally.add_wrong(f"run {run_id}")
    return tally


def _foreign_messages() -> Tally:
    tally = Tally("messages", seen=Message.objects.count())
    foreign_run = Exists(Run.objects.filter(pk=OuterRef("run_id")).exclude(user_id=OuterRef("user_id")))
    foreign_thread = ~Q(user_id=F("thread__user_id"))
    for key, thread_id in (
        Message.objects.filter(foreign_thread | foreign_run).order_by("pk").values_list("message_id", "thread_id")
    ):
        tally.add_wrong(f"message {key} in thread {thread_id}")
    return tally


def _foreign_attachments() -> Tally:
    tally = Tally("attachments", seen=Attachment.objects.count())
    foreign = Thread.objects.filter(pk=OuterRef("thread_id")).exclude(user_id=OuterRef("user_id"))
    for attachment_id in _names(Attachment.objects.filter(Exists(foreign)), "pk"):
        tally.add_wrong(f"attachment {attachment_id}")
    return tally


def _foreign_replies() -> Tally:
    tally = Tally("receipts")
    receipts = CommandReceipt.objects.order_by("pk").values_list("user_id", "command_id", "reply")
    for chunk in batched(receipts.iterator(chunk_size=CHUNK), CHUNK):
        tally.seen += len(chunk)
        named = [(user_id, command_id, _result(reply)) for user_id, command_id, reply in chunk]
        runs = _owners_of_runs(result.get("run_id") for _, _, result in named)
        threads = _owners_of_threads(result.get("thread_id") for _, _, result in named)
        for user_id, command_id, result in named:
            run, thread = str(result.get("run_id")), str(result.get("thread_id"))
            if runs.get(run, user_id) != user_id or threads.get(thread, user_id) != user_id:
                tally.add_wrong(f"command {command_id} of user {user_id}")
    return tally


def _result(reply: str) -> Mapping[str, Any]:
    """What a reply frame says of a command that was carried out; nothing for one that was not, or is at work."""
    frame = orjson.loads(reply) if reply else {}
    return frame.get("result") or {}


def _names(rows: Any, field: str) -> Iterator[str]:
    names: Iterator[str] = rows.order_by(field).values_list(field, flat=True).iterator(chunk_size=CHUNK)
    return names


def _owners_of_runs(run_ids: Iterable[str | None]) -> Mapping[str, int]:
    wanted = {run_id for run_id in run_ids if run_id}
    return dict(RunLedger.objects.filter(pk__in=wanted).values_list("pk", "user_id"))


def _owners_of_threads(thread_ids: Iterable[str | None]) -> Mapping[str, int]:
    wanted = {thread_id for thread_id in thread_ids if thread_id}
    return dict(Thread.objects.filter(pk__in=wanted).values_list("pk", "user_id"))
