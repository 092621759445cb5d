"""The link breaks at every statement of an append, before it and after it: nothing is lost, nothing is there twice."""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator

import pytest
from django.db import Error, OperationalError, connection
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.realtime.commit import Committed, Fenced
from tests.chat.chat_room import Room, spoken, texts
from tests.realtime.committing import Run, assert_stream_is_whole, new_committer
from tests.realtime.holding import another_connection

pytestmark = pytest.mark.django_db(transaction=True)

_users = itertools.count(1)


def cut() -> None:
    """End this thread's connection as a dying server does; SQLite, which has none, fails as on a failing disk."""
    if connection.vendor == "postgresql":
        with another_connection() as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.connection.info.backend_pid,))
        return
    connection.connection.rollback()  # as it does by itself then
    cause = sqlite3.OperationalError("disk I/O error")
    cause.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise OperationalError(str(cause)) from cause


class Cut:
    """Cuts the link around the n-th thing that goes over it: each statement, and COMMIT."""

    def __init__(self, number: int, *, after: bool) -> None:
        self.number = number
        self.after = after
        self.count = 0
        self.bit = False

    def _around(self, go):
        self.count += 1
        if self.count != self.number:
            return go()
        self.bit = True
        if not self.after:
            cut()
            return go()
        result = go()
        cut()
        if self.committing:
            raise OperationalError("the answer to COMMIT was lost")
        return result

    committing = False

    def __call__(self, execute, sql, params, many, context):
        self.committing = False
        return self._around(lambda: execute(sql, params, many, context))

    @contextlib.contextmanager
    def at_work(self) -> Iterator["Cut"]:
        commit = connection._commit

        def commit_or_cut():
            self.committing = True
            return self._around(commit)

        connection._commit = commit_or_cut
        try:
            with connection.execute_wrapper(self):
                yield self
        finally:
            connection._commit = commit


def commit_through(cut_at: Cut, batches, committer):
    """As the writer does: hand over until it is known what became of each."""
    with cut_at.at_work():
        try:
            result = committer.commit(batches)
        except Error:
            result = None
    if result is None:
        connection.close_if_unusable_or_obsolete()
        result = committer.commit(batches)
    return result.outcomes


def statements_of_a_commit(ends) -> int:
    counting = Cut(0, after=False)
    runs = [Run(next(_users)) for _ in range(3)]
    with counting.at_work():
        new_committer().commit([run.next("a", ends=ends) for run in runs])
    return counting.count


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_a_link_that_breaks_at_any_statement_of_a_commit_loses_and_doubles_nothing(ends, after):
    total = statements_of_a_commit(ends)
    assert total >= 5
    for number in range(1, total + 1):
        runs = [Run(next(_users)) for _ in range(3)]
        cut_at = Cut(number, after=after)
        outcomes = commit_through(cut_at, [run.next("a", "b", ends=ends) for run in runs], new_committer())
        assert cut_at.bit
        assert set(outcomes.values()) == {Committed(cancel_requested=False)}, number
        for run in runs:
            assert run.words() == (["a", "b", "end"] if ends else ["a", "b"]), number
            assert_stream_is_whole(run.lease.user_id)


@pytest.mark.parametrize("after", [False, True])
def test_a_link_that_breaks_at_any_statement_of_an_end_settles_and_folds_it_once(after):
    number, bit = 0, True
    while bit:
        number += 1
        room = Room(user_id=10_000 + 1_000 * after + number)
        thread_id = room.thread().pk
        room.ask(thread_id)
        claimed = room.claim()
        room.say(claimed, *spoken("hello"))
        cut_at = Cut(number, after=after)
        with cut_at.at_work(), contextlib.suppress(Error):
            room.end(claimed)
        bit = cut_at.bit
        if room.runs.describe(room.user_id, claimed.lease.run_id)["status"] == "running":
            room.end(claimed)
        run = room.runs.describe(room.user_id, claimed.lease.run_id)
        assert (run["status"], run["usage"]) == ("succeeded", {"input_tokens": 3, "output_tokens": 5}), number
        assert texts(room.messages(thread_id)) == ["hello", "hello"], number
        kinds = [entry["event"]["type"] for entry in room.entries()]
        assert kinds.count("RUN_FINISHED") == 1, number
        assert_stream_is_whole(room.user_id)
    assert number > 10


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    cuts=st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=5, max_size=5),
    fenced=st.booleans(),
)
def test_however_batches_and_cuts_follow_each_other_a_run_is_stored_as_it_was_said(sizes, cuts, fenced):
    run, other = Run(next(_users)), Run(next(_users))
    said: list[str] = []
    for place, (size, (number, after)) in enumerate(zip(sizes, cuts, strict=False)):
        words = [f"w{place}-{n}" for n in range(size)]
        said += words
        batches = [run.next(*words), other.next(*words)]
        outcomes = commit_through(Cut(number, after=after), batches, new_committer())
        assert outcomes[run.run_id] == outcomes[other.run_id] == Committed(cancel_requested=False)
    if fenced:
        run.fence()
        assert commit_through(Cut(*cuts[0][:1], after=cuts[0][1]), [run.next("late")], new_committer()) == {
            run.run_id: Fenced()
        }
    assert run.words() == other.words() == said
    assert_stream_is_whole(run.lease.user_id)
