"""Writers of one process wait in line, and the turn is passed on whatever way a transaction ends."""

import threading

import pytest
from django.db import OperationalError, connection, connections, transaction

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
        assert connection._has_turn
    assert not connection._has_turn


def test_many_writers_all_get_their_turn_and_none_finds_the_database_locked():
    failures: list[BaseException] = []
    threads = [threading.Thread(target=lambda: failures.extend(in_a_thread(write))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
