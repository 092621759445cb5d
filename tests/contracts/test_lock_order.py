"""Every transaction takes its locks in one order, read off the SQL that it really sends; run on both databases.

SQLite has no row locks, and Django leaves the clause out. Here it is given back as a comment, so that the same
statements can be told apart there.
"""

import contextlib
import re
from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from apps.agents.base import TokenCount
from apps.execution import lifecycle
from apps.execution.recovery import Recovery
from apps.realtime.protocol import IfBusy, RunCancel
from apps.vocabulary import RunId, UserId, new_id
from tests.chat.chat_room import Room, a_start, spoken
from tests.realtime.committing import Run, new_committer

pytestmark = pytest.mark.django_db(transaction=True)

ORDER = (
    "chat_commandreceipt",
    "execution_userbudget",
    "chat_thread",
    "execution_run",
    "realtime_runledger",
    "realtime_stream",
)
CLAUSE = "FOR NO KEY UPDATE"
CHANGES = re.compile(r'\s*(?:UPDATE|INSERT INTO|INSERT OR IGNORE INTO|DELETE FROM)\s+"?(\w+)"?')
SELECTS = re.compile(r'\s*SELECT .*? FROM "?(\w+)"?', re.DOTALL)


class Locks:
    """The tables whose rows a transaction took, in the order in which it came to each."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.statements: list[str] = []

    def __call__(self, execute, sql, params, many, context):
        locking = CLAUSE in sql
        match = SELECTS.match(sql) if locking else CHANGES.match(sql)
        if match is not None and match[1] in ORDER:
            self.statements.append(sql)
            if match[1] not in self.taken:
                self.taken.append(match[1])
            if locking and " IN (" in sql:
                assert "ORDER BY" in sql, f"rows of {match[1]} are locked in no order: {sql}"
        return execute(sql, params, many, context)


@contextlib.contextmanager
def locks(*expected: str) -> Iterator[Locks]:
    """One transaction in the block takes rows of exactly these tables, in the one order."""
    taken = Locks()
    with connection.execute_wrapper(taken):
        yield taken
    assert taken.taken == [table for table in ORDER if table in taken.taken], "\n".join(taken.statements)
    assert set(taken.taken) == set(expected), "\n".join(taken.statements)


@pytest.fixture(autouse=True)
def clauses_are_seen(monkeypatch):
    if connection.vendor == "sqlite":
        for feature in ("has_select_for_update", "has_select_for_no_key_update"):
            monkeypatch.setattr(connection.features, feature, True)
        monkeypatch.setattr(connection.ops, "for_update_sql", lambda **_: f"/* {CLAUSE} */")


RECEIPT, BUDGET, THREAD, RUN, LEDGER, STREAM = ORDER


@pytest.fixture
def room():
    return Room(user_id=5)


def test_admission(room):
    thread_id = room.thread().pk
    with locks(RECEIPT, BUDGET, THREAD, RUN, LEDGER, STREAM):
        assert room.execute(a_start(thread_id))["ok"]


def test_admission_that_sends_another_run_away(room):
    thread_id = room.thread().pk
    room.ask(thread_id)
    with locks(RECEIPT, BUDGET, THREAD, RUN, LEDGER, STREAM):
        assert room.execute(a_start(thread_id, if_busy=IfBusy.INTERRUPT))["ok"]
    room.claim()
    with locks(RECEIPT, BUDGET, THREAD, RUN, LEDGER, STREAM):
        assert room.execute(a_start(thread_id, if_busy=IfBusy.ROLLBACK))["ok"]


def test_claim(room):
    for _ in range(2):
        room.ask(room.thread().pk)
    with locks(BUDGET, RUN, LEDGER, STREAM):
        assert room.runs.claim() is not None


def test_append():
    runs = [Run(user) for user in (3, 1, 2)]
    new_committer().commit([run.next("first") for run in runs])
    with locks(LEDGER, STREAM) as taken:
        new_committer().commit([run.next("a") for run in runs])
    assert sum(CLAUSE in sql for sql in taken.statements) == 2, "however many users there are"


def test_end(room):
    room.ask(room.thread().pk)
    claimed = room.claim()
    with locks(BUDGET, THREAD, RUN, LEDGER, STREAM):
        room.end(claimed, *spoken("hi"))


def test_cancelling_a_run_that_waits_and_one_that_runs(room):
    asked = room.ask(room.thread().pk)
    room.claim()
    waiting = room.ask(room.thread().pk)
    with locks(RECEIPT, BUDGET, RUN, LEDGER):
        assert room.execute(RunCancel(new_id(), RunId(asked["run_id"])))["ok"]
    with locks(RECEIPT, BUDGET, THREAD, RUN, LEDGER, STREAM):
        assert room.execute(RunCancel(new_id(), RunId(waiting["run_id"])))["ok"]


def test_deleting_a_thread_in_which_a_run_waits(room):
    thread_id = room.thread().pk
    room.ask(thread_id)
    with locks(BUDGET, THREAD, RUN, LEDGER, STREAM):
        room.conversation.delete_thread(room.identity, thread_id)


def test_changing_a_thread(room):
    thread_id = room.thread().pk
    with locks(THREAD, STREAM):
        room.conversation.change_thread(room.identity, thread_id, title="new")


def test_ending_a_run_whose_process_died(room):
    room.ask(room.thread().pk)
    claimed = room.claim()
    with locks(BUDGET, THREAD, RUN, LEDGER, STREAM):
        assert Recovery(room.log, room.fold).end(claimed.lease.run_id, lifecycle.interrupted(TokenCount()))


@pytest.mark.parametrize("wrong", [(STREAM, LEDGER), (RUN, BUDGET)])
def test_an_order_that_is_wrong_is_seen(room, wrong):
    room.ask(room.thread().pk)

    def touch_both():
        with locks(*wrong), transaction.atomic(), connection.cursor() as cursor:
            for table in wrong:
                cursor.execute(f"UPDATE {table} SET user_id = user_id WHERE user_id = %s", (UserId(5),))

    with pytest.raises(AssertionError, match="UPDATE"):
        touch_both()
