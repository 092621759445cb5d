import asyncio

import pytest

from apps.agents.base import ModelDelta, TokenCount
from apps.execution.waiting import TimedModel, TimedTools, WaitClock


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


class SlowModel:
    """Takes 2 s before each piece."""

    def __init__(self, clock, pieces):
        self._clock, self._pieces, self.closed = clock, pieces, False

    async def stream(self, *_):
        try:
            for piece in self._pieces:
                self._clock.now += 2
                yield piece
            self._clock.now += 1
        finally:
            self.closed = True


class SlowTools:
    declarations = ("a tool",)

    def __init__(self, clock):
        self._clock = clock
        self.go = asyncio.Event()

    async def call(self, name, arguments, tool_call_id, decision=None):
        await self.go.wait()
        self._clock.now += 3
        if name == "broken":
            raise LookupError(name)
        return f"{name} {arguments} {tool_call_id}"


async def test_only_the_time_until_each_piece_counts_not_what_is_done_with_it(clock):
    waits = WaitClock(clock)
    model = SlowModel(clock, [ModelDelta("a"), ModelDelta("b")])
    seen = []
    async for delta in TimedModel(model, waits).stream("", (), (), TokenCount()):
        clock.now += 100
        seen.append(delta.text)
    assert (seen, waits.waited_s, model.closed) == (["a", "b"], 5, True)


async def test_a_model_that_is_left_early_is_closed(clock):
    model = SlowModel(clock, [ModelDelta("a"), ModelDelta("b")])
    deltas = TimedModel(model, WaitClock(clock)).stream("", (), (), TokenCount())
    assert (await anext(deltas)).text == "a"
    await deltas.aclose()
    assert model.closed


async def test_waits_that_overlap_count_once(clock):
    waits = WaitClock(clock)
    slow = SlowTools(clock)
    tools = TimedTools(slow, waits)
    calls = asyncio.gather(tools.call("x", {}, "1"), tools.call("y", {}, "2"))
    slow.go.set()
    assert await calls == ["x {} 1", "y {} 2"]
    assert waits.waited_s == 6
    assert tools.declarations == ("a tool",)


async def test_a_tool_that_fails_was_waited_for_too(clock):
    waits, slow = WaitClock(clock), SlowTools(clock)
    slow.go.set()
    with pytest.raises(LookupError):
        await TimedTools(slow, waits).call("broken", {}, "1")
    assert waits.waited_s == 3
    with waits.waiting():
        clock.now += 4
        assert waits.waited_s == 7
