"""Opens an engine for each run, knows how many are open, and refuses above the bound. Engines are never
pooled.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from apps.execution.context import UserExecutionContext
from apps.execution.engine import IsolatedExecutionEngine
from apps.execution.limits import RunLimits


class EngineLimitReached(RuntimeError):  # noqa: N818 - names the bound that was met
    """The process has as many engines open as it may, the abandoned ones among them."""


class ExecutionEngineFactory:
    """One a process. Counts, and holds no engine."""

    def __init__(self, limits: RunLimits) -> None:
        self._limits = limits
        self._live = 0
        self._opened = 0

    def __repr__(self) -> str:
        return f"<ExecutionEngineFactory live={self._live} of {self._limits.run_slots}>"

    @property
    def live(self) -> int:
        """Engines that are open now."""
        return self._live

    @asynccontextmanager
    async def open_engine(self, context: UserExecutionContext) -> AsyncIterator[IsolatedExecutionEngine]:
        """An engine for this context's run only. Raises EngineLimitReached.

        The count falls when the engine is left, so an agent that does not stop keeps its engine counted.
        """
        if self._live >= self._limits.run_slots:
            raise EngineLimitReached(f"{self._live} engines are open; at most {self._limits.run_slots} may be")
        engine = IsolatedExecutionEngine(context)
        self._live += 1
        self._opened += 1
        try:
            yield engine
        finally:
            engine.close()
            self._live -= 1

    def census(self) -> Mapping[str, int]:
        """Counts for the process report."""
        return {"live": self._live, "opened_total": self._opened}
