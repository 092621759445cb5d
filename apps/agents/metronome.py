"""An agent whose output is known in advance, so that each lost, doubled or foreign delta is seen."""

import asyncio
from collections.abc import AsyncIterator
from typing import override

from ag_ui.core import BaseEvent, TextMessageContentEvent, TextMessageEndEvent, TextMessageStartEvent

from apps.agents.base import Agent, AgentContext, AgentInput
from apps.agents.options import Options
from apps.vocabulary import new_id

MAX_COUNT = 100_000  # deltas
MAX_INTERVAL_MS = 60_000  # milliseconds
MAX_TAG_CHARACTERS = 64


class MetronomeAgent(Agent):
    """Input `count=N interval_ms=M tag=T`: one message of N deltas `"{i}:{T} "`, i from 0, one every M
    milliseconds.

    Delta i is due i * M after the start, so a consumer that holds the agent up delays what is due in the
    meantime and moves nothing after it: the load that a test asks for is the load that it gets.
    """

    name = "metronome"
    title = "Metronome"
    description = "Counts at a steady pace. Input: count=10 interval_ms=100 tag=tick."
    max_tokens = MAX_COUNT + 20_000  # a token a delta, and the words of the longest input

    @override
    async def run(self, context: AgentContext, task: AgentInput) -> AsyncIterator[BaseEvent]:
        """Count. Raises AgentInputError."""
        options = Options.parse(task.text, ("count", "interval_ms", "tag"))
        count = options.number("count", 10, 1, MAX_COUNT)
        interval_s = options.number("interval_ms", 100, 0, MAX_INTERVAL_MS) / 1000
        tag = options.text("tag", "tick", MAX_TAG_CHARACTERS)
        context.usage.add(input_tokens=len(task.text.split()))

        loop = asyncio.get_running_loop()
        started = loop.time()
        message_id = new_id()
        yield TextMessageStartEvent(message_id=message_id, role="assistant")
        for i in range(count):
            await asyncio.sleep(max(0.0, started + i * interval_s - loop.time()))
            context.usage.add(output_tokens=1)
            yield TextMessageContentEvent(message_id=message_id, delta=f"{i}:{tag} ")
        yield TextMessageEndEvent(message_id=message_id)
