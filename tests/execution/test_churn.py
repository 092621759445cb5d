"""After runs of all kinds, many of them cancelled, a process holds what it held before."""

import pytest

from apps.execution.models import Run
from apps.operations.books import Books
from tests.execution.admitting_desk import assert_books_balance
from tests.execution.churn import be_quick, churn, held
from tests.execution.running_room import eventually, open_running_room

pytestmark = pytest.mark.django_db(transaction=True)


async def given_back(room, baseline):
    """Clean-up that is under way may take its time; then nothing is held that was not held before."""
    try:
        await eventually(lambda: held(room) == baseline)
    except TimeoutError:
        assert held(room) == baseline


async def test_engines_contexts_tasks_threads_and_descriptors_come_back_to_what_they_were(time_budget, monkeypatch):
    be_quick(monkeypatch)
    cancelled = 0
    async with open_running_room(run_slots=30, open_runs_per_user=40) as room, room.executing():
        warm_up = True
        for random in time_budget("churn").rounds():
            cancelled += await churn(room, random)
            if warm_up:  # the pools have opened what they open once
                baseline, warm_up = held(room), False
                cancelled += await churn(room, random)
            await given_back(room, baseline)
        assert (baseline.engines, baseline.running, baseline.left_behind, baseline.contexts) == (0, 0, 0, 0)
        runs = await room.database.call(Run.objects.count)
        print(f"{runs} runs, {cancelled} cancelled, {baseline}")
        assert cancelled / runs > 0.3
        assert await room.database.call(Run.objects.open().count) == 0
        await room.database.call(assert_books_balance)
        checks = Books(room.log, silent_s=10.0).after_runs()
        assert [check.name for check in checks if (await room.database.call(check.look)).wrong] == []
