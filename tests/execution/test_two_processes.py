"""What two processes admit at once stays within the bounds of the one user who asks both."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from django.db import connection

from apps.execution.models import Run, UserBudget
from tests.execution.admitting_desk import assert_books_balance
from tests.execution.running_room import ANN

pytestmark = pytest.mark.django_db(transaction=True)

# Says that it is ready, waits for the word, and then asks from eight threads at once.
PROGRAM = """
import sys
import django
django.setup()
from concurrent.futures import ThreadPoolExecutor
from django.db import connections
from apps.vocabulary import Refusal
from tests.execution.admitting_desk import Desk
from tests.execution.running_room import ANN

bounds = {name: int(value) for name, value in (pair.split("=") for pair in sys.argv[1:])}
desk = Desk(**bounds)

def ask(_):
    try:
        return desk.admit(ANN) and "admitted"
    except Refusal as refusal:
        return str(refusal.code)
    finally:
        connections.close_all()

print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(8) as pool:
    print(*pool.map(ask, range(8)))
"""


def database_url() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    folder = database["OPTIONS"]["host"]  # of its Unix socket
    return f"postgresql://{database['USER']}:@/{database['NAME']}?host={folder}"


def answers_of_two_processes(**bounds: int) -> Counter[str]:
    environment = {**os.environ, "DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    arguments = [f"{name}={value}" for name, value in bounds.items()]
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in asking:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in asking:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return Counter(word for process in asking for word in process.communicate(timeout=60)[0].split())
    finally:
        for process in asking:
            process.kill()
            process.wait()


def test_of_16_admissions_in_two_processes_at_a_limit_of_3_three_are_admitted():
    assert answers_of_two_processes(open_runs_per_user=3) == {"admitted": 3, "too_many_runs": 13}
    assert Run.objects.count() == UserBudget.objects.get(pk=ANN.user_id).open_runs == 3
    assert_books_balance()


def test_no_quota_is_overspent_by_two_processes_that_admit_at_once():
    # A run of this agent may use 1,000 tokens.
    assert answers_of_two_processes(tokens_per_day=5_999) == {"admitted": 5, "quota_exceeded": 11}
    assert UserBudget.objects.get(pk=ANN.user_id).reserved_tokens == 5_000
    assert_books_balance()
