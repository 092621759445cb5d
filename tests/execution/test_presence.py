import os
import signal
import subprocess
import sys

import psycopg
import pytest
from django.db import connection

from apps.execution.presence import AdvisoryLock, FileLock, process_lock
from apps.vocabulary import new_id
from tests.postgresql import PostgreSQL

HOLD = """
import sys, pathlib
from apps.execution.presence import FileLock
FileLock(pathlib.Path(sys.argv[1])).hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holding(tmp_path):
    """Another process that holds the lock of an id."""
    process_id = new_id()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, process_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    yield other, process_id
    other.kill()
    other.communicate()


def test_a_files_lock_is_free_from_the_moment_its_process_is_killed(tmp_path, holding):
    other, process_id = holding
    lock = FileLock(tmp_path)
    assert not lock.is_free(process_id)
    os.kill(other.pid, signal.SIGSTOP)
    assert not lock.is_free(process_id)
    other.kill()
    other.wait()
    assert lock.is_free(process_id)


def test_what_a_dead_process_left_is_removed_and_a_living_ones_is_not(tmp_path, holding):
    other, process_id = holding
    lock = FileLock(tmp_path)
    lock.forget(process_id)
    assert len(list(tmp_path.iterdir())) == 1
    other.kill()
    other.wait()
    lock.forget(process_id)
    assert not list(tmp_path.iterdir())


def test_a_released_lock_leaves_nothing_and_a_held_one_is_held_however_often_it_is_taken(tmp_path):
    own, process_id = FileLock(tmp_path), new_id()
    own.hold(process_id)
    own.hold(process_id)
    assert not FileLock(tmp_path).is_free(process_id)
    own.release()
    own.release()
    assert FileLock(tmp_path).is_free(process_id)
    assert not list(tmp_path.iterdir())


def test_a_name_from_a_row_leads_to_no_other_file(tmp_path):
    with pytest.raises(ValueError, match="badly formed"):
        FileLock(tmp_path).is_free("../../etc/passwd")


@pytest.mark.django_db
def test_the_lock_fits_the_database():
    expected = AdvisoryLock if connection.vendor == "postgresql" else FileLock
    assert isinstance(process_lock(), expected)


@pytest.mark.services
def test_an_advisory_lock_is_seen_by_others_lost_with_its_connection_and_taken_again(postgresql: PostgreSQL, tmp_path):
    script = f"""
import os
os.environ["DATABASE_URL"] = {postgresql.url!r}
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django; django.setup()
from django.db import connection, OperationalError
from apps.execution.presence import AdvisoryLock
from apps.vocabulary import new_id
import threading
mine, other = new_id(), new_id()
own = AdvisoryLock()
seen = []
def look():
    seen.append([AdvisoryLock().is_free(mine), AdvisoryLock().is_free(other)])
    connection.close()
def looked():
    thread = threading.Thread(target=look); thread.start(); thread.join(); return seen[-1]
assert looked() == [True, True]
own.hold(mine); own.hold(mine)
assert looked() == [False, True], seen
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_backend_pid()")
    print(cursor.fetchone()[0], flush=True)
input()
try:
    own.is_free(other)
except OperationalError:
    connection.close_if_unusable_or_obsolete()
assert looked() == [True, True], seen
own.hold(mine)
assert looked() == [False, True], seen
print("whole", flush=True)
"""
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        backend = int(other.stdout.readline())
        with psycopg.connect(postgresql.url, autocommit=True) as server:
            assert server.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,)).fetchone() == (True,)
        out, _ = other.communicate("\n", timeout=30)
        assert out == "whole\n"
    finally:
        other.kill()
        other.wait()
