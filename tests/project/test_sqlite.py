"""Writers of one process wait in line, and the turn is passed on whatever way a transaction ends."""

import os
import threading

import pytest
from django.db import OperationalError, connection, connections, transaction

from apps.chat.models import ApiToken
from project.sqlite.line import Line

pytestmark = [
    pytest.mark.django_db(transaction=True),
]


def in_a_thread(work) -> list[BaseException]:
    """Run `work` with a connection of its own; what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    return raised


def write() -> None:
    with transaction.atomic():
        connection.cursor().execute("SELECT 1")


def write_impatiently() -> None:
    connection.settings_dict = {
        **connection.settings_dict,
        "OPTIONS": {**connection.settings_dict["OPTIONS"], "timeout": 0.05},
    }
    write()


def test_a_second_writer_waits_for_the_first_and_is_refused_when_its_time_is_up():
    with transaction.atomic():
        raised = in_a_thread(write_impatiently)
    assert isinstance(raised[0], OperationalError)
    assert "no turn to write within 0.05 s" in str(raised[0])
    assert in_a_thread(write) == []


def test_the_turn_is_passed_on_after_a_commit_a_rollback_and_a_lost_connection():
    write()
    assert in_a_thread(write) == []
    with transaction.atomic():
        transaction.set_rollback(True)
    assert in_a_thread(write) == []

    def lose_the_connection() -> None:
        with transaction.atomic():
            connection.close()

    in_a_thread(lose_the_connection)
    assert in_a_thread(write) == []


def test_nested_blocks_take_one_turn():
    with transaction.atomic(), transaction.atomic():
        assert connection._turn is not None
    assert connection._turn is None


def test_many_writers_all_get_their_turn_and_none_finds_the_database_locked():
    failures: list[BaseException] = []
    threads = [threading.Thread(target=lambda: failures.extend(in_a_thread(write))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []


def test_a_statement_that_writes_by_itself_takes_a_turn_and_one_that_reads_takes_none():
    ApiToken.objects.create(token_hash="x", user_id=1)

    def write_alone() -> None:
        connection.settings_dict = {
            **connection.settings_dict,
            "OPTIONS": {**connection.settings_dict["OPTIONS"], "timeout": 0.05},
        }
        assert ApiToken.objects.count() == 1
        ApiToken.objects.update(name="used")

    with transaction.atomic():
        raised = in_a_thread(write_alone)
    assert "no turn to write" in str(raised[0])
    assert in_a_thread(write_alone) == []
    assert connection._turn is None


def test_a_thread_that_dies_in_its_transaction_loses_its_turn():
    def die() -> None:
        transaction.atomic().__enter__()
        assert connection._turn is not None

    thread = threading.Thread(target=die)
    thread.start()
    thread.join(20)
    assert in_a_thread(write) == []


def test_a_forked_process_has_a_line_of_its_own():
    with transaction.atomic():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                line = Line()
                assert line.take(0, nothing) is not None
                connection._pass_turn()  # forgets the parent's, and passes nothing on
                connection._take_turn()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert connection._turn is not None


# -- the line by itself


def nothing() -> None:
    """What a turn without a file lets go of."""


def test_turns_are_given_in_the_order_of_coming():
    line, order = Line(), []
    first = line.take(1, nothing)
    assert first is not None
    threads = []
    for number in range(20):
        thread = threading.Thread(target=lambda number=number: stand_in_line(line, order, number))
        thread.start()
        while len(line._waiting) <= number:
            threading.Event().wait(0.001)
        threads.append(thread)
    line.pass_on(first)
    for thread in threads:
        thread.join(20)
    assert order == list(range(20))
    assert repr(line) == "<Line taken=False waiting=0>"


def stand_in_line(line: Line, order: list[int], number: int) -> None:
    turn = line.take(20, nothing)
    assert turn is not None
    order.append(number)
    line.pass_on(turn)


def test_who_gave_up_waiting_is_not_called():
    line = Line()
    first = line.take(1, nothing)
    assert first is not None
    assert line.take(0.01, nothing) is None
    line.pass_on(first)
    assert line.take(0, nothing) is not None


def test_a_turn_that_was_taken_away_passes_nothing_on():
    line, turns = Line(), []
    thread = threading.Thread(target=lambda: turns.append(line.take(1, nothing)))
    thread.start()
    thread.join(20)
    mine = line.take(5, nothing)
    assert mine is not None
    line.pass_on(turns[0])
    assert line.take(0.01, nothing) is None
