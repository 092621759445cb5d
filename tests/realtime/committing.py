"""Batches for the committer, without publishers and without an event loop: ledgers and rows are real."""

from collections.abc import Sequence

from django.db import transaction

from apps.realtime.commit import Batch, Committer, FrozenEvent, Outcome
from apps.realtime.log import EventLog, LogLimits, nobody
from apps.realtime.segments import SegmentLimits
from apps.realtime.values import Ending, RunLease
from apps.vocabulary import RunId, ThreadId, UserId, new_id
from tests.realtime.logging_room import Notes, stored_entries

LOG = EventLog(LogLimits())


class Run:
    """A claimed run, and the batches that it would hand over one after the other."""

    def __init__(self, user: int) -> None:
        run_id, thread_id, user_id = RunId(new_id()), ThreadId(new_id()), UserId(user)
        with transaction.atomic():
            LOG.open_run(user_id, run_id, thread_id)
            LOG.claim_run(user_id, run_id, 1)
        self.lease = RunLease(run_id, thread_id, user_id, 1)
        self.base = 0

    @property
    def run_id(self) -> RunId:
        return self.lease.run_id

    def next(self, *words: str, ends: bool = False) -> Batch:
        """The next batch: one event a word, and with `ends` a terminal one."""
        said = [*words, "end"] if ends else [*words]
        batch = Batch(self.lease, self.base, tuple(self.event(word) for word in said), self.ending() if ends else None)
        self.base += len(said)
        return batch

    def fence(self) -> None:
        """Give the run to another owner."""
        with transaction.atomic():
            LOG.claim_run(self.lease.user_id, self.run_id, self.lease.fence + 1)

    def event(self, word: str) -> FrozenEvent:
        entry = f'"thread_id":null,"run_id":"{self.run_id}","at":0.0,"event":{{"type":"CUSTOM","name":"{word}"}}'
        return FrozenEvent(entry, len(entry))

    def ending(self) -> Ending:
        return Ending(None, "succeeded", {})  # type: ignore[arg-type]  # the event itself is in the batch

    def words(self) -> list[str]:
        """What is stored of this run, in order."""
        entries = stored_entries(self.lease.user_id)
        return [entry["event"]["name"] for entry in entries if entry["run_id"] == self.run_id]


def new_committer(settle: Notes | None = None) -> Committer:
    return Committer(settle=settle or Notes(), fold=Notes(), limits=SegmentLimits(events=4), may_receive_leaks=nobody)


def outcomes(committer: Committer, batches: Sequence[Batch]) -> dict[RunId, Outcome]:
    return committer.commit(batches).outcomes


def assert_stream_is_whole(user: int) -> None:
    entries = stored_entries(user)
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
