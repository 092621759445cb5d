"""The same churn on the shared engine: what it holds only grows. Without this the other test could not fail."""

from contextlib import asynccontextmanager

import pytest

from apps.legacy.engine import ExecutionEngine
from tests.execution.churn import be_quick, churn
from tests.execution.running_room import open_running_room

pytestmark = pytest.mark.django_db(transaction=True)


async def test_what_the_shared_engine_holds_grows_with_every_run(time_budget, monkeypatch):
    be_quick(monkeypatch)
    engine = ExecutionEngine()

    @asynccontextmanager
    async def shared(context, _paths):
        try:
            yield engine.bind(context)
        finally:
            engine.release(context)

    sizes = [0]
    async with open_running_room(run_slots=30, open_runs_per_user=40) as room, room.executing(open_engine=shared):
        for number, random in enumerate(time_budget("churn").rounds()):
            if number == 3:
                break
            await churn(room, random)
            sizes.append(len(engine.run_history))
    print(f"messages of all users in the one history, round by round: {sizes}")
    assert sizes == sorted(set(sizes)), "it grows in every round"
    assert engine.current is not None, "and it keeps the last run's context, with all that belongs to its user"
