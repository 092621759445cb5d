"""A run's budget of model calls and tokens."""

import pytest

from apps.agents.base import ModelDelta, TokenCount
from apps.execution.budget import BudgetedModel, RunBudget, RunBudgetExceeded
from tests.execution.running_room import ANN, open_running_room


class Echo:
    """A model that uses ten tokens a call."""

    async def stream(self, _instructions, _messages, _tools, usage):
        usage.add(input_tokens=4, output_tokens=6)
        yield ModelDelta(text="echo")


async def answer(model, usage):
    return [delta.text async for delta in model.stream("", (), (), usage)]


async def test_a_run_makes_as_many_model_calls_as_it_may():
    usage = TokenCount()
    model = BudgetedModel(Echo(), RunBudget(model_calls=2, tokens=1_000), usage)
    assert await answer(model, usage) == ["echo"]
    await answer(model, usage)
    with pytest.raises(RunBudgetExceeded, match="2 times"):
        await answer(model, usage)
    assert usage.output_tokens == 12


async def test_a_run_that_used_its_tokens_begins_no_further_call():
    usage = TokenCount()
    model = BudgetedModel(Echo(), RunBudget(model_calls=9, tokens=9), usage)
    await answer(model, usage)
    with pytest.raises(RunBudgetExceeded, match="9 tokens"):
        await answer(model, usage)


async def test_what_a_model_reports_at_the_end_of_its_last_answer_does_not_cut_that_answer_off():
    usage, budget = TokenCount(), RunBudget(model_calls=9, tokens=9)
    await answer(BudgetedModel(Echo(), budget, usage), usage)
    budget.check_event(usage)


def test_an_agent_that_counts_by_itself_is_held_to_its_tokens_at_once():
    budget = RunBudget(model_calls=9, tokens=9)
    budget.check_event(TokenCount(4, 5))
    with pytest.raises(RunBudgetExceeded):
        budget.check_event(TokenCount(5, 5))


@pytest.mark.django_db(transaction=True)
async def test_a_run_that_talks_beyond_its_reservation_ends_with_a_limit_and_pays_what_it_used(monkeypatch):
    async with open_running_room() as room, room.executing():
        monkeypatch.setitem(room.runs._known_agents, "metronome", 10)
        run_id = await room.start(ANN, "metronome", "count=50 interval_ms=0 tag=x")
        ended = await room.ended(ANN, run_id)
        assert (ended["type"], ended["code"]) == ("RUN_ERROR", "limit_exceeded")
        assert "10 tokens" in ended["message"]
        budget = await room.budget(ANN)
        assert (budget.used_tokens, budget.reserved_tokens) == (11, 0)
