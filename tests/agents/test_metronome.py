import asyncio
import selectors

import pytest

from apps.agents.base import AgentInputError
from apps.agents.metronome import MAX_COUNT, MetronomeAgent
from tests.agents.worlds import World, left_open, text_of, types


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it: exact, and fast."""

    def __init__(self):
        self.now = 0.0
        loop = self

        class JumpingSelector(selectors.DefaultSelector):
            def select(self, timeout=None):
                if timeout:
                    loop.now += timeout
                return super().select(0)

        super().__init__(JumpingSelector())

    def time(self):
        return self.now


def run_in_virtual_time(main):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


async def test_it_counts_to_n_in_one_message():
    world = World()
    events = await world.events(MetronomeAgent(), "count=3 interval_ms=0 tag=tock")
    assert text_of(events) == "0:tock 1:tock 2:tock "
    assert types(events) == ["TEXT_MESSAGE_START", *["TEXT_MESSAGE_CONTENT"] * 3, "TEXT_MESSAGE_END"]
    assert [event.delta for event in events[1:-1]] == ["0:tock ", "1:tock ", "2:tock "]
    assert left_open(events) == set()
    assert (world.usage.input_tokens, world.usage.output_tokens) == (3, 3)


def test_delta_i_comes_i_intervals_after_the_start():
    async def main():
        loop = asyncio.get_running_loop()
        world, times = World(), []
        async for event in MetronomeAgent().run(world, world.task("count=50 interval_ms=20")):
            if types([event]) == ["TEXT_MESSAGE_CONTENT"]:
                times.append(loop.time())  # noqa: PERF401 - the time of each
        return times

    assert run_in_virtual_time(main()) == pytest.approx([i * 0.02 for i in range(50)])


def test_a_consumer_that_holds_it_up_moves_no_later_delta():
    async def main():
        loop = asyncio.get_running_loop()
        world, times = World(), []
        async for event in MetronomeAgent().run(world, world.task("count=10 interval_ms=100")):
            if types([event]) == ["TEXT_MESSAGE_CONTENT"]:
                times.append(loop.time())
                if len(times) == 3:
                    await asyncio.sleep(0.35)
        return times

    held_up = run_in_virtual_time(main())
    assert held_up[:3] == pytest.approx([0.0, 0.1, 0.2])
    assert held_up[3:6] == pytest.approx([0.55, 0.55, 0.55])
    assert held_up[6:] == pytest.approx([0.6, 0.7, 0.8, 0.9])


async def test_two_metronomes_take_turns_even_without_an_interval():
    seen = []

    async def count(tag):
        world = World()
        async for event in MetronomeAgent().run(world, world.task(f"count=5 interval_ms=0 tag={tag}")):
            if types([event]) == ["TEXT_MESSAGE_CONTENT"]:
                seen.append(tag)  # noqa: PERF401 - the turns

    async with asyncio.TaskGroup() as group:
        group.create_task(count("a"))
        group.create_task(count("b"))
    assert seen == ["a", "b"] * 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("count=0", "count is a whole number from 1"),
        (f"count={MAX_COUNT + 1}", "count is a whole number from 1"),
        ("interval_ms=60001", "interval_ms is a whole number from 0 to 60000"),
        ("tag=" + "x" * 65, "tag has 65 characters"),
        ("hello", "accepted are count=…, interval_ms=…, tag=…"),
    ],
)
async def test_input_that_it_cannot_work_with_is_answered_with_what_it_accepts(text, reason):
    with pytest.raises(AgentInputError, match=reason):
        await World().events(MetronomeAgent(), text)
