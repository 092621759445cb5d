"""The flaws are the promise here: without them the isolation tests would have no positive control."""

import asyncio
from contextlib import AsyncExitStack, aclosing

from apps.legacy.engine import SLOTS, ExecutionEngine, get_execution_engine
from tests.legacy.agents import asks, context_of


async def test_a_run_goes_on_under_the_identity_of_whoever_was_bound_last():
    engine = ExecutionEngine()
    async with (
        context_of("anna", 1) as anna,
        context_of("ben", 2) as ben,
        aclosing(engine.bind(anna).events(asks(anna, "q"))) as hers,
    ):
        assert (await anext(hers)).delta.startswith("anna heard")
        engine.bind(ben)
        assert (await anext(hers)).delta.startswith("ben heard")
        engine.release(ben)
        assert (await anext(hers)).delta.startswith("ben heard"), "nobody takes it back when the run ends"


async def test_every_agent_is_given_the_history_of_all_users():
    engine = ExecutionEngine()
    async with context_of("anna", 1, told="anna's diary") as anna, context_of("ben", 2) as ben:
        async with aclosing(engine.bind(anna).events(asks(anna, "anna's question"))) as hers:
            await anext(hers)
        async with aclosing(engine.bind(ben).events(asks(ben, "hello"))) as his:
            heard = (await anext(his)).delta
    assert "anna's diary" in heard
    assert "anna's question" in heard
    assert heard.count("anna heard") == 1, "her answer too"


async def test_one_agent_instance_remembers_for_everyone():
    engine = ExecutionEngine()
    async with context_of("anna", 1) as anna, context_of("ben", 2) as ben:
        assert engine.agent_for(anna) is engine.agent_for(ben)


async def test_the_history_has_no_bound():
    engine = ExecutionEngine()
    async with context_of("anna", 1, told="again") as anna:
        for _ in range(500):
            engine.bind(anna)
    assert len(engine.run_history) == 500


async def test_ten_runs_of_one_user_stop_all_others():
    engine = ExecutionEngine()
    async with AsyncExitStack() as stack:
        for _ in range(SLOTS):
            anna = await stack.enter_async_context(context_of("anna", 1))
            running = await stack.enter_async_context(aclosing(engine.bind(anna).events(asks(anna, "long"))))
            await anext(running)
        ben = await stack.enter_async_context(context_of("ben", 2))
        his = engine.bind(ben).events(asks(ben, "short"))
        first = asyncio.ensure_future(anext(his))
        done, _ = await asyncio.wait({first}, timeout=0)
        assert not done
        assert engine.slots().locked()
        await running.aclose()
        assert (await first).delta.startswith("ben heard")
        await his.aclose()


async def test_the_active_runs_are_one_table_for_all_users():
    async with context_of("anna", 1) as anna, context_of("ben", 2) as ben:
        async with get_execution_engine(anna) as hers, get_execution_engine(ben) as his:
            assert hers._engine is his._engine
            assert {anna.run_id, ben.run_id} <= hers._engine.active_runs.keys()
        assert not {anna.run_id, ben.run_id} & hers._engine.active_runs.keys()


async def test_an_agent_is_closed_when_its_run_is_left():
    engine = ExecutionEngine()
    async with context_of("anna", 1) as anna:
        hers = engine.bind(anna).events(asks(anna, "q"))
        await anext(hers)
        await hers.aclose()
        assert not engine.slots().locked()
        assert engine.run_history[-1].role == "assistant"
