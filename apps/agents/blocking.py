"""Agents that block: each answer runs in a thread and on an event loop of its own, so the process' loop goes on.

Model and tools belong to the process' loop. So two loops take turns, and a stream is carried from the one that it lives
on to the one that reads it, item by item: nothing is read ahead, and the back-pressure of the log holds for such an
agent as for any other. A thread cannot be stopped from outside. What is cancelled ends where the agent next yields or
awaits; until then the run that was given up keeps its slot, so there are never more such threads than slots.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from ag_ui.core import BaseEvent

from apps.agents.base import (
    Agent,
    AgentContext,
    AgentInput,
    Decision,
    HistoryMessage,
    Model,
    ModelDelta,
    TokenCount,
    ToolBelt,
    ToolDeclaration,
)
from apps.agents.streaming import closing
from apps.vocabulary import Identity


async def answer_of(agent: Agent, context: AgentContext, task: AgentInput) -> AsyncGenerator[BaseEvent]:
    """The agent's events, from wherever it runs. The agent is closed on every way out."""
    if not agent.blocking:
        async with closing(agent.run(context, task)) as events:
            async for event in events:
                yield event
        return
    across = _ContextAcross(context, asyncio.get_running_loop())
    async with (
        _loop_of_its_own(f"blocking-{agent.name}") as home,
        closing(_carried(lambda: agent.run(across, task), home)) as carried,
    ):
        async for event in carried:
            yield event


@asynccontextmanager
async def _loop_of_its_own(name: str) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """A loop in a daemon thread. Leaving does not wait for the thread: what is left in it must not hold the caller."""
    home = asyncio.new_event_loop()
    threading.Thread(target=_serve, args=(home,), name=name, daemon=True).start()
    try:
        yield home
    finally:
        with suppress(RuntimeError):  # the loop is closed: a task that the agent left called `sys.exit`
            home.call_soon_threadsafe(home.stop)


def _serve(home: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: home) as runner:  # its end cancels what the agent has left behind
        runner.get_loop().run_forever()


class _Carrier[T]:
    """Carries the items of one stream from the loop `home` to the loop that made it, one at a time."""

    def __init__(self, open_stream: Callable[[], AsyncIterator[T]], home: asyncio.AbstractEventLoop) -> None:
        self._open_stream = open_stream
        self._home = home
        self._here = asyncio.get_running_loop()
        self._task: asyncio.Task[BaseException | None] | None = None
        self.items: asyncio.Queue[T] = asyncio.Queue()  # of one item: each is waited for until it was taken
        self.ended: asyncio.Future[BaseException | None] = self._here.create_future()  # with what the stream raised

    # -- here

    def begin(self) -> None:
        self._home.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        self._home.call_soon_threadsafe(self._cancel)

    async def _put(self, item: T) -> None:
        self.items.put_nowait(item)
        await self.items.join()

    def _tell_end(self, task: "asyncio.Task[BaseException | None]") -> None:
        self.ended.set_result(asyncio.CancelledError() if task.cancelled() else task.result())

    # -- at home

    def _begin(self) -> None:
        self._task = self._home.create_task(self._pump(), name="carrier")
        self._task.add_done_callback(lambda task: self._here.call_soon_threadsafe(self._tell_end, task))

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _pump(self) -> BaseException | None:
        try:
            async with closing(self._open_stream()) as stream:
                async for item in stream:
                    await _on(self._here, self._put(item))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it is the agent's, and not this thread's end
            return error
        return None


async def _carried[T](
    open_stream: Callable[[], AsyncIterator[T]], home: asyncio.AbstractEventLoop
) -> AsyncGenerator[T]:
    """Read here a stream that is opened, read and closed in one task on the loop `home`.

    Its end is waited for on every way out; who must not wait longer cancels once more.
    """
    carrier = _Carrier(open_stream, home)
    carrier.begin()
    try:
        while True:
            taking = asyncio.create_task(carrier.items.get(), name="taking")
            try:
                waited: set[asyncio.Future[Any]] = {taking, carrier.ended}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    break
                yield taking.result()
                carrier.items.task_done()
            finally:
                taking.cancel()
        if (error := carrier.ended.result()) is not None:
            raise error
    finally:
        if not carrier.ended.done():
            carrier.cancel()
            await asyncio.wait({carrier.ended})


async def _on[T](loop: asyncio.AbstractEventLoop, work: Any) -> T:
    """Await, here, what must run on the loop `loop`. Cancelling reaches it there."""
    return cast("T", await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop)))


class _ContextAcross:
    """The context of a run, for an agent on another loop than the run's."""

    def __init__(self, context: AgentContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop

    @property
    def identity(self) -> Identity:
        return self._context.identity

    @property
    def history(self) -> Sequence[HistoryMessage]:
        return self._context.history

    @property
    def model(self) -> Model | None:
        model = self._context.model
        return None if model is None else _ModelAcross(model, self._loop)

    @property
    def tools(self) -> ToolBelt:
        return _ToolsAcross(self._context.tools, self._loop)

    @property
    def usage(self) -> TokenCount:
        return self._context.usage


class _ModelAcross:
    def __init__(self, model: Model, loop: asyncio.AbstractEventLoop) -> None:
        self._model = model
        self._loop = loop

    def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        return _carried(lambda: self._model.stream(instructions, messages, tools, usage), self._loop)


class _ToolsAcross:
    def __init__(self, belt: ToolBelt, loop: asyncio.AbstractEventLoop) -> None:
        self._belt = belt
        self._loop = loop

    @property
    def declarations(self) -> Sequence[ToolDeclaration]:
        return self._belt.declarations

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str, tool_call_id: str, decision: Decision | None = None
    ) -> str:
        return await _on(self._loop, self._belt.call(name, arguments, tool_call_id, decision))
