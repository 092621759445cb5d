"""Going on after the user's word: the approved call is made, once, and the agent is told what came of it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from ag_ui.core import BaseEvent

from apps.agents.base import Decision, HistoryMessage, ToolBelt
from apps.agents.streaming import ToolUse, closing
from apps.vocabulary import MessageId, new_id


@dataclass(slots=True)
class Resumption:
    """A decision, carried out. `result` is there when `events` is through; `done`: the tool did what it was to do."""

    decision: Decision
    result: str = ""
    done: bool = False

    async def events(self, tools: ToolBelt) -> AsyncIterator[BaseEvent]:
        """Make the call that was approved, as a call of this run; nothing after a denial."""
        decision = self.decision
        if not decision.approved:
            comment = f" They said: {decision.comment}" if decision.comment else ""
            self.result = f"The user declined this call.{comment}"
            return
        use = ToolUse(new_id(), decision.tool, decision.arguments)
        async with closing(use.events(tools, decision)) as events:
            async for event in events:
                yield event
        self.result, self.done = use.result, not use.refused

    def told(self, history: Sequence[HistoryMessage]) -> list[HistoryMessage]:
        """The history with the result of the call that waited. Where the call was cut off, it is told at the end."""
        call_id = self.decision.tool_call_id
        if any(message.tool_call_id == call_id for message in history):
            return [
                replace(message, text=self.result) if message.tool_call_id == call_id else message
                for message in history
            ]
        call = {
            "id": call_id,
            "type": "function",
            "function": {"name": self.decision.tool, "arguments": self.decision.arguments},
        }
        return [
            *history,
            HistoryMessage("assistant", "", MessageId(new_id()), tool_calls=(call,)),
            HistoryMessage("tool", self.result, MessageId(new_id()), tool_call_id=call_id),
        ]
