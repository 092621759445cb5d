"""A log with real rows and a real writer, for tests: the participants only take notes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import orjson
from django.db import transaction

from apps.realtime.bridge import OwnerBridge, RunBridge
from apps.realtime.database import DatabaseThreads
from apps.realtime.log import EventLog, LogLimits
from apps.realtime.models import Segment
from apps.realtime.publisher import RunEventPublisher
from apps.realtime.redaction import EVERYTHING, Disclosure
from apps.realtime.values import EndedRun, Page, RunLease, Told
from apps.vocabulary import RunId, ThreadId, UserId, new_id


class Notes:
    """A participant that remembers who ended, once it is committed, and can be told to fail for one run."""

    def __init__(self) -> None:
        self.ended: list[EndedRun] = []
        self.poison: RunId | None = None

    def lock(self, ended: Sequence[EndedRun]) -> None:
        pass

    def lock_free(self, ended: Sequence[EndedRun]) -> frozenset[RunId]:
        return frozenset()

    def write(self, ended: Sequence[EndedRun]) -> Sequence[Told]:
        transaction.on_commit(partial(self.ended.extend, ended))
        return ()


class Tabs:
    """An audience that remembers the pages it was shown."""

    def __init__(self) -> None:
        self.pages: list[Page] = []

    def show(self, pages: Sequence[Page]) -> None:
        self.pages += pages

    def hint(self, heads) -> None:
        pass


class LogRoom:
    def __init__(self, log: EventLog, database: DatabaseThreads, settle: Notes, tabs: Tabs) -> None:
        self.log = log
        self.database = database
        self.settle = settle
        self.tabs = tabs

    async def lease(self, user: int, fence: int = 1) -> RunLease:
        """Admit and claim a run of this user."""
        run_id, thread_id = RunId(new_id()), ThreadId(new_id())
        return await self.database.call(self._lease, UserId(user), run_id, thread_id, fence)

    def _lease(self, user_id: UserId, run_id: RunId, thread_id: ThreadId, fence: int) -> RunLease:
        with transaction.atomic():
            self.log.open_run(user_id, run_id, thread_id)
            logged = self.log.claim_run(user_id, run_id, fence)
        return RunLease(run_id, thread_id, user_id, fence, logged)

    def publisher(self, lease: RunLease, bridge: RunBridge | None = None) -> RunEventPublisher:
        return self.log.publisher(lease, bridge or OwnerBridge(lease))

    async def entries(self, user: int) -> list[dict]:
        return await self.database.call(stored_entries, user)


def stored_entries(user: int) -> list[dict]:
    payloads = Segment.objects.filter(user_id=user).order_by("first_seq").values_list("payload", flat=True)
    return [entry for payload in payloads for entry in orjson.loads(payload)]


@asynccontextmanager
async def open_log_room(
    limits: LogLimits | None = None, disclosure: Disclosure = EVERYTHING, **options
) -> AsyncIterator[LogRoom]:
    tabs, settle = Tabs(), Notes()
    log = EventLog(limits or LogLimits(), tabs, {"search": {"query", "result"}}, disclosure)
    async with (
        DatabaseThreads(2) as database,
        log.open(database, settle=settle, fold=Notes(), **options),
    ):
        yield LogRoom(log, database, settle, tabs)
