"""How long a run waited for its model and its tools: what is left of its time is its engine's own.

Waits that overlap count once, so that the sum never exceeds the time that went by.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from apps.agents.base import Decision, HistoryMessage, Model, ModelDelta, TokenCount, ToolBelt, ToolDeclaration


class WaitClock:
    """The waits of one run. `now` gives seconds of a clock that never goes back."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waits = 0
        self._since = 0.0
        self._waited_s = 0.0

    @property
    def waited_s(self) -> float:
        """Seconds so far, a wait that goes on included."""
        return self._waited_s + (self._now() - self._since if self._waits else 0.0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block."""
        if self._waits == 0:
            self._since = self._now()
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            if self._waits == 0:
                self._waited_s += self._now() - self._since


class TimedModel:
    """A run's model, whose answers are waited for on the clock."""

    def __init__(self, model: Model, clock: WaitClock) -> None:
        self._model = model
        self._clock = clock

    async def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        """As the model's own; only the time until each piece counts, not what is done with it."""
        deltas = self._model.stream(instructions, messages, tools, usage)
        try:
            while True:
                with self._clock.waiting():
                    try:
                        delta = await anext(deltas)
                    except StopAsyncIteration:
                        return
                yield delta
        finally:
            close = getattr(deltas, "aclose", None)
            if close is not None:
                await close()


class TimedTools:
    """A run's tools, whose results are waited for on the clock."""

    def __init__(self, tools: ToolBelt, clock: WaitClock) -> None:
        self._tools = tools
        self._clock = clock

    @property
    def declarations(self) -> Sequence[ToolDeclaration]:
        """As the tools' own."""
        return self._tools.declarations

    async def call(
        self, name: str, arguments: Mapping[str, object] | str, tool_call_id: str, decision: Decision | None = None
    ) -> str:
        """As the tools' own."""
        with self._clock.waiting():
            return await self._tools.call(name, arguments, tool_call_id, decision)
