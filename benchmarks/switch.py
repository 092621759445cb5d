"""What the switch costs: a choice of paths, a call through the adapter beside a direct one, and the shadow.

`python -m benchmarks.switch` uses a temporary SQLite file and real agents, engines and threads, in one process. Runs of
all kinds take turns within one round, so that what else the machine does befalls all of them alike. Times are medians
and percentiles over all rounds; `--quick` takes a tenth.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.serving import migrated_database

RUNS_AT_ONCE = 10
RUN = "count=40 interval_ms=5 tag=x"  # a run of about a fifth of a second


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def timed(function: Callable[[], Any], times: int) -> float:
    """Microseconds of the processor in one call, the median of `times`: a busy machine does not change them."""
    taken = []
    for _ in range(times):
        begun = time.thread_time()
        function()
        taken.append(time.thread_time() - begun)
    return 1e6 * statistics.median(taken)


async def timed_async(function: Callable[[], Awaitable[Any]], times: int) -> float:
    """Microseconds of one call, the median of `times`."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await function()
        taken.append(time.perf_counter() - begun)
    return 1e6 * statistics.median(taken)


async def measure(rounds: int) -> None:
    """Prints all figures."""
    from apps.agents.builtin_tools import builtin_tools  # noqa: PLC0415 - after Django was set up
    from apps.agents.registry import build_registry  # noqa: PLC0415 - as above
    from apps.agents.tools import Toolbox  # noqa: PLC0415 - as above
    from apps.realtime.database import DatabaseThreads  # noqa: PLC0415 - as above

    async with DatabaseThreads(8) as database:
        room = Room(database, build_registry(faulty_allowed=False), Toolbox(builtin_tools()))
        await room.prepare()
        await calls(room, 20 * rounds)
        await runs(room, rounds)


class Room:
    """The parts that all kinds of runs share."""

    def __init__(self, database: Any, agents: Any, toolbox: Any) -> None:
        from apps.execution.factory import ExecutionEngineFactory  # noqa: PLC0415 - after Django was set up
        from apps.rollout.adapter import FactoryAdapter  # noqa: PLC0415 - as above
        from apps.rollout.reach import reach_legacy  # noqa: PLC0415 - as above
        from project.configuration import Configuration  # noqa: PLC0415 - as above
        from project.limits import run_limits  # noqa: PLC0415 - as above
        from project.seams import BRIDGE_SEAM, ENGINE_SEAM, SEAMS  # noqa: PLC0415 - as above

        self.database, self.agents, self.toolbox = database, agents, toolbox
        self.bounds = Configuration()
        self.engines = ExecutionEngineFactory(run_limits(self.bounds))
        self.seam = ENGINE_SEAM
        self.adapter = FactoryAdapter(
            SEAMS,
            bind={ENGINE_SEAM.name: self.engines.open_engine, BRIDGE_SEAM.name: lambda lease: lease},
            reach=lambda seam: database.call(reach_legacy, seam),
        )

    async def prepare(self) -> None:
        """Put the engine's seam at shadow."""
        from apps.rollout.moves import move, operator  # noqa: PLC0415 - after Django was set up
        from apps.rollout.stages import Placement, Stage  # noqa: PLC0415 - as above

        await self.database.call(move, self.seam.name, 0, Placement(Stage.SHADOW), operator(), "benchmark")

    def context(self) -> Any:
        """What a run of the metronome is given."""
        from apps.execution.budget import RunBudget  # noqa: PLC0415 - after Django was set up
        from apps.execution.context import Grant, UserExecutionContext  # noqa: PLC0415 - after Django was set up
        from apps.vocabulary import Identity, RunId, ThreadId, UserId, new_id  # noqa: PLC0415 - as above

        return UserExecutionContext(
            Grant(
                identity=Identity(UserId(1), "anna"),
                run_id=RunId(new_id()),
                thread_id=ThreadId(new_id()),
                agent_name="metronome",
                create_agent=lambda: self.agents.create("metronome"),
                history=(),
                model=None,
                open_tools=self.toolbox.open_belt,
                cleanup_timeout_s=1.0,
                budget=RunBudget(self.bounds.model_calls_per_run, self.bounds.tokens_per_day),
            )
        )


async def calls(room: Room, times: int) -> None:
    """A choice, and one use of each path."""
    from apps.vocabulary import Identity, PinnedPath, UserId  # noqa: PLC0415 - after Django was set up

    anna = Identity(UserId(1), "anna")
    chosen = await room.database.call(lambda: timed(lambda: room.adapter.choose_paths(anna), times))
    print(f"{'choosing the paths of a run, in its claim':50} {chosen:8.0f} us")
    context = room.context()

    async def use(path: str) -> None:
        async with room.adapter.use(room.seam, anna, PinnedPath(path, 1), context):
            pass

    async def direct() -> None:
        async with room.engines.open_engine(context):
            pass

    async with context:
        plain = await timed_async(direct, times)
        through = await timed_async(lambda: use("factory"), times)
        legacy = await timed_async(lambda: use("legacy"), times)
    print(f"{'opening an engine directly':50} {plain:8.0f} us")
    print(f"{'opening it through the adapter':50} {through:8.0f} us")
    print(f"{'opening legacy, with the look whether it is retired':50} {legacy:8.0f} us")


async def runs(room: Room, rounds: int) -> None:
    """Whole runs of all kinds, in turns."""
    from apps.vocabulary import PinnedPath  # noqa: PLC0415 - after Django was set up

    legacy, factory = {room.seam.name: PinnedPath("legacy", 1)}, {room.seam.name: PinnedPath("factory", 1)}
    async with AsyncExitStack() as stack:
        kinds: dict[str, tuple[Any, Any]] = {
            "factory, directly": (lambda context, _: room.engines.open_engine(context), factory),
            "factory, through the adapter": (await opened(stack, room, 0.0, None), factory),
            "legacy, not recorded": (await opened(stack, room, 0.0, None), legacy),
            "legacy, recorded and replayed": (await opened(stack, room, 1.0, None), legacy),
            "legacy, the replay hangs": (await opened(stack, room, 1.0, hangs), legacy),
            "legacy, the replay blocks": (await opened(stack, room, 1.0, blocks), legacy),
        }
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(rounds):
            # What one kind leaves to its shadow falls on whichever comes next: that is another one in each round.
            for name, (open_engine, paths) in random.Random(number).sample(sorted(kinds.items()), len(kinds)):
                taken[name] += await asyncio.gather(*(run(room, open_engine, paths) for _ in range(RUNS_AT_ONCE)))
    print(f"\n{'a run of the metronome, 40 deltas':50} {'p50 ms':>8} {'p95 ms':>8}")
    for name, values in taken.items():
        print(f"{name:50} {percentile(values, 0.5):8.1f} {percentile(values, 0.95):8.1f}")


async def run(room: Room, open_engine: Any, paths: Any) -> float:
    """Milliseconds of one run."""
    from apps.agents.base import AgentInput  # noqa: PLC0415 - after Django was set up

    begun = time.perf_counter()
    async with room.context() as context, open_engine(context, paths) as engine:
        async for _ in engine.events(AgentInput(context.run_id, context.thread_id, RUN)):
            pass
    return 1e3 * (time.perf_counter() - begun)


async def opened(stack: AsyncExitStack, room: Room, share: float, factory: Any) -> Any:
    """How engines are opened beside a shadow of their own, whose factory is replaced by `factory` if one is given."""
    from apps.rollout.shadow import Replay, Shadow, ShadowLimits  # noqa: PLC0415 - after Django was set up
    from project.shadowing import engine_replay, recording_engine  # noqa: PLC0415 - as above

    replay = engine_replay(room.seam, room.agents, room.toolbox, room.bounds)
    if factory is not None:
        replay = Replay(replay.seam, replay.live, factory, None)
    limits = ShadowLimits(
        slots=2, timeout_s=5.0, waiting=50, queued=50, share=share, kept_minutes=60, poll_s=60.0, stop_s=0.1
    )
    shadow = await stack.enter_async_context(Shadow({room.seam.name: replay}, limits, lambda: False, lambda: 0.5))
    return recording_engine(room.seam, room.adapter, shadow, room.database, room.bounds.recording_bytes)


async def hangs(_payload: str) -> Any:
    await asyncio.Event().wait()


async def blocks(_payload: str) -> Any:
    time.sleep(3_600)  # noqa: ASYNC251 - what a factory does that was never meant for a loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = migrated_database(Path(folder))
        os.environ |= {"DATABASE_URL": f"sqlite:///{database}", "SECRET_KEY": "b" * 50, "LOG_LEVEL": "CRITICAL"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        import django  # noqa: PLC0415 - the environment first

        django.setup()
        asyncio.run(measure(rounds=5 if options.quick else 50))
    sys.stdout.flush()
    os._exit(0)  # two threads sleep for an hour, as they were told


if __name__ == "__main__":
    main()
