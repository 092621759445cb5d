import dataclasses

import pytest

from apps.execution.context import UserExecutionContext
from apps.execution.factory import EngineLimitReached, ExecutionEngineFactory
from tests.execution.running_room import LIMITS
from tests.execution.test_context import a_grant


async def test_each_run_gets_an_engine_of_its_own_and_the_count_falls_when_it_is_left():
    factory = ExecutionEngineFactory(LIMITS)
    async with UserExecutionContext(a_grant()) as context:
        async with factory.open_engine(context) as one, factory.open_engine(context) as two:
            assert one is not two
            assert factory.live == 2
        assert factory.census() == {"live": 0, "opened_total": 2}
        with pytest.raises(LookupError):
            async with factory.open_engine(context):
                raise LookupError
    assert factory.live == 0


async def test_it_refuses_above_its_bound_and_counts_no_refusal():
    factory = ExecutionEngineFactory(dataclasses.replace(LIMITS, run_slots=1))
    async with UserExecutionContext(a_grant()) as context, factory.open_engine(context):
        with pytest.raises(EngineLimitReached, match="at most 1"):
            async with factory.open_engine(context):
                pass
        assert repr(factory) == "<ExecutionEngineFactory live=1 of 1>"
