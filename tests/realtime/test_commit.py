"""One commit for many users: who brings what the database refuses fails alone, and an outage fails nobody."""

import contextlib
import sqlite3
import threading

import pytest
from django.db import Error, connection, connections

from apps.realtime.commit import Committed, Fenced, Refused
from apps.realtime.models import RunLedger, Stream
from apps.realtime.outages import Trouble, trouble_of
from apps.realtime.values import RunLease
from tests.realtime.committing import Run, assert_stream_is_whole, new_committer, outcomes
from tests.realtime.holding import another_connection
from tests.realtime.logging_room import Notes, stored_entries

pytestmark = pytest.mark.django_db(transaction=True)

USERS = 50
CULPRIT = 25


def commit_with_one_that_is_bad(spoil):
    """Fifty users in one commit, of whom one brings what `spoil` makes of their batch: their outcome."""
    runs = [Run(user) for user in range(1, USERS + 1)]
    batches = [run.next("a", "b", ends=run.lease.user_id % 2 == 0) for run in runs]
    batches[CULPRIT] = spoil(runs[CULPRIT], batches[CULPRIT])
    settle = Notes()
    found = outcomes(new_committer(settle), batches)
    for run in (run for place, run in enumerate(runs) if place != CULPRIT):
        assert found[run.run_id] == Committed(cancel_requested=False)
        assert run.words()[:2] == ["a", "b"]
        assert_stream_is_whole(run.lease.user_id)
    ended = {run.user_id for run in settle.ended}
    assert ended >= {user for user in range(1, USERS + 1) if user % 2 == 0 and user != CULPRIT + 1}
    return runs[CULPRIT], found[runs[CULPRIT].run_id]


def with_event(batch, event):
    return type(batch)(batch.lease, batch.base, (batch.events[0], event), None)


def test_a_lone_surrogate_fails_its_own_run_only():
    run, outcome = commit_with_one_that_is_bad(lambda run, batch: with_event(batch, run.event("x\ud800")))
    assert isinstance(outcome, Refused)
    assert run.words() == []


def test_a_nul_reaches_nobody_else():
    _, outcome = commit_with_one_that_is_bad(lambda run, batch: with_event(batch, run.event("x\\u0000")))
    assert isinstance(outcome, Committed)  # escaped as JSON it is text like any other
    _, outcome = commit_with_one_that_is_bad(lambda run, batch: with_event(batch, run.event("x\0")))
    assert isinstance(outcome, Refused if connection.vendor == "postgresql" else Committed)


def test_a_run_of_another_user_is_refused_and_writes_to_neither():
    stranger = Run(900)

    def foreign(run, batch):
        lease = RunLease(stranger.run_id, stranger.lease.thread_id, run.lease.user_id, 1)
        run.lease = lease
        return type(batch)(lease, 0, batch.events, None)

    run, outcome = commit_with_one_that_is_bad(foreign)
    assert isinstance(outcome, Fenced)
    assert stored_entries(900) == []
    assert stored_entries(run.lease.user_id) == []


def test_a_run_of_a_deleted_user_is_refused_and_makes_no_stream():
    def delete(run, batch):
        RunLedger.objects.filter(user_id=run.lease.user_id).delete()
        return batch

    run, outcome = commit_with_one_that_is_bad(delete)
    assert isinstance(outcome, Fenced)
    assert stored_entries(run.lease.user_id) == []


class Fails(Notes):
    """A participant whose statement the database refuses for one run."""

    def __init__(self, fail) -> None:
        super().__init__()
        self.fail = fail
        self.tries = 0

    def write(self, ended):
        if any(run.user_id == CULPRIT for run in ended):
            self.tries += 1
            self.fail()
        return super().write(ended)


def takes_too_long():
    """A statement that the server ends: an OperationalError on both databases, as is the loss of the server."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL statement_timeout = 1")
            cursor.execute("SELECT pg_sleep(5)")
        else:
            connection.connection.set_progress_handler(lambda: 1, 1)
            try:
                cursor.execute("SELECT count(*) FROM realtime_runledger a, realtime_runledger b")
            finally:
                connection.connection.set_progress_handler(None, 1)


def names_no_table():
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM there_is_no_such_table")  # OperationalError on SQLite


def overflows():
    Stream.objects.bulk_create([Stream(user_id=1_000, head=2**70)])


@pytest.mark.parametrize("fail", [takes_too_long, names_no_table, overflows])
def test_an_error_that_one_run_brings_is_not_taken_for_an_outage(fail):
    runs = [Run(user) for user in range(1, USERS + 1)]
    settle = Fails(fail)
    found = outcomes(new_committer(settle), [run.next("a", ends=True) for run in runs])
    refused = {run.lease.user_id for run in runs if isinstance(found[run.run_id], Refused)}
    assert refused == {CULPRIT}
    assert {run.user_id for run in settle.ended} == set(range(1, USERS + 1)) - {CULPRIT}
    assert [run.words() for run in runs if run.lease.user_id != CULPRIT] == [["a", "end"]] * (USERS - 1)


def test_a_collision_is_tried_again_and_not_for_ever():
    settle = Fails(takes_too_long)
    run = Run(CULPRIT)
    found = outcomes(new_committer(settle), [run.next("a", ends=True)])
    assert isinstance(found[run.run_id], Refused)
    assert settle.tries == 3


def test_a_collision_that_passes_fails_nobody():
    run = Run(CULPRIT)

    def once():
        if settle.tries == 1:
            takes_too_long()

    settle = Fails(once)
    found = outcomes(new_committer(settle), [run.next("a", ends=True)])
    assert found[run.run_id] == Committed(cancel_requested=False)
    assert run.words() == ["a", "end"]


def lose_the_connection():
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    else:
        connection.connection.close()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


def test_a_lost_connection_is_an_outage_for_all_and_fails_none():
    runs = [Run(user) for user in range(1, USERS + 1)]
    batches = [run.next("a", ends=True) for run in runs]
    committer = new_committer(Fails(lose_the_connection))
    with pytest.raises(Error):
        committer.commit(batches)
    connection.close_if_unusable_or_obsolete()
    assert stored_entries(1) == []
    found = outcomes(new_committer(), batches)
    assert set(found.values()) == {Committed(cancel_requested=False)}
    assert [run.words() for run in runs] == [["a", "end"]] * USERS


def switch_writing(off):
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            mode = "ONLY" if off else "WRITE"
            cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION READ {mode}")
        else:
            cursor.execute(f"PRAGMA query_only = {int(off)}")


def test_a_database_that_takes_no_writes_is_an_outage_and_fails_nobody():
    run = Run(1)
    batch = run.next("a")
    switch_writing(off=True)
    try:
        with pytest.raises(Error, match=r"read-only|readonly"):
            new_committer().commit([batch])
    finally:
        switch_writing(off=False)
    assert outcomes(new_committer(), [batch])[run.run_id] == Committed(cancel_requested=False)
    assert run.words() == ["a"]


@contextlib.contextmanager
def locked_by_another_process():
    """All of a SQLite file, or the table of segments."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor, another_connection() as other:
            other.execute("LOCK TABLE realtime_segment IN ACCESS EXCLUSIVE MODE")
            cursor.execute("SET lock_timeout = '20ms'")
            yield
            cursor.execute("SET lock_timeout = 0")
    else:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 20")
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()


def test_what_another_process_has_locked_fails_no_run():
    run = Run(1)
    batch = run.next("a")
    with locked_by_another_process():
        if connection.vendor == "postgresql":
            assert new_committer().commit([batch]).held == {run.run_id}
        else:
            with pytest.raises(Error, match="locked"):
                new_committer().commit([batch])
    assert outcomes(new_committer(), [batch])[run.run_id] == Committed(cancel_requested=False)


def test_a_batch_handed_over_twice_is_stored_once():
    run = Run(1)
    batch = run.next("a", "b", ends=True)
    for _ in range(3):
        assert outcomes(new_committer(), [batch])[run.run_id] == Committed(cancel_requested=False)
    assert run.words() == ["a", "b", "end"]


def test_what_no_database_raised_is_a_defect_of_one_run():
    assert trouble_of(KeyError("x")) is Trouble.CULPRIT


def test_four_writers_at_once_store_everything_once():
    """Several processes are several writers; here they are threads with connections of their own."""
    runs = [Run(user) for user in range(1, 9)]
    parts = [[run.next(f"w{part}", ends=part == 4) for part in range(5)] for run in runs]
    failures = []

    def write(mine):
        try:
            committer = new_committer()
            for part in range(5):
                waiting = [batches[part] for batches in mine]
                while waiting:
                    result = committer.commit(waiting)
                    assert set(result.outcomes.values()) <= {Committed(cancel_requested=False)}
                    waiting = [batch for batch in waiting if batch.lease.run_id in result.held]
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(parts[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert [run.words() for run in runs] == [["w0", "w1", "w2", "w3", "w4", "end"]] * 8
