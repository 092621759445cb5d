"""What one run may use of its model: so many calls, so many tokens. Events, bytes and time are bounded elsewhere.

A model reports its tokens when a call is over; so a run may pass its tokens by one call, and begins no other.
"""

from collections.abc import AsyncIterator, Sequence

from apps.agents.base import HistoryMessage, Model, ModelDelta, TokenCount, ToolDeclaration


class RunBudgetExceeded(Exception):  # noqa: N818 - a limit, not a fault
    """The run has used what a run of this agent may use; the text is public."""


class RunBudget:
    """The bounds of one run, asked before each call of its model and at each event of its agent."""

    def __init__(self, model_calls: int, tokens: int) -> None:
        self._model_calls = model_calls
        self._tokens = tokens
        self._called = 0

    def __repr__(self) -> str:
        return f"<RunBudget calls={self._called} of {self._model_calls}, of {self._tokens} tokens>"

    def begin_call(self, usage: TokenCount) -> None:
        """Count a call of the model. Raises RunBudgetExceeded."""
        self._check_tokens(usage)
        if self._called >= self._model_calls:
            raise RunBudgetExceeded(f"A run may call its model {self._model_calls} times; this one wanted more.")
        self._called += 1

    def check_event(self, usage: TokenCount) -> None:
        """An agent that counts by itself, without a model, is held to its tokens at once. Raises RunBudgetExceeded."""
        if not self._called:
            self._check_tokens(usage)

    def _check_tokens(self, usage: TokenCount) -> None:
        if usage.input_tokens + usage.output_tokens > self._tokens:
            raise RunBudgetExceeded(f"A run of this agent may use {self._tokens} tokens; this one wanted more.")


class BudgetedModel:
    """A run's model, each call of which is asked of its budget."""

    def __init__(self, model: Model, budget: RunBudget, run_usage: TokenCount) -> None:
        self._model = model
        self._budget = budget
        self._run_usage = run_usage

    def stream(
        self,
        instructions: str,
        messages: Sequence[HistoryMessage],
        tools: Sequence[ToolDeclaration],
        usage: TokenCount,
    ) -> AsyncIterator[ModelDelta]:
        """As the model's own. Raises RunBudgetExceeded."""
        self._budget.begin_call(self._run_usage)
        return self._model.stream(instructions, messages, tools, usage)
