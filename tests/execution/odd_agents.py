"""Agents that do what an agent should not, beyond what the built-in `faulty` does."""

import asyncio
import sys
from typing import Final

from ag_ui.core import TextMessageContentEvent, TextMessageEndEvent, TextMessageStartEvent

from apps.agents.base import Agent, AgentInputError
from apps.vocabulary import new_id


class Odd(Agent):
    """Says one word, then misbehaves."""

    title = "Odd"
    description = "For tests."

    async def run(self, context, task):
        message_id = new_id()
        yield TextMessageStartEvent(message_id=message_id, role="assistant")
        yield TextMessageContentEvent(message_id=message_id, delta="one ")
        context.usage.add(input_tokens=2, output_tokens=1)
        async for delta in self.go_on(context, task):
            yield TextMessageContentEvent(message_id=message_id, delta=delta)
        yield TextMessageEndEvent(message_id=message_id)


class Stubborn(Odd):
    """Catches its cancellation and waits on, until the test lets it go."""

    name = "stubborn"

    async def go_on(self, _context, task):
        release = asyncio.Event()
        LET_GO[task.run_id] = release
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        yield "after the end "


class Deaf(Odd):
    """Catches its cancellation and talks on."""

    name = "deaf"

    async def go_on(self, _context, _task):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            while True:
                yield "still here "


class Exiting(Odd):
    name = "exiting"

    async def go_on(self, _context, _task):
        sys.exit(3)
        yield ""


class SelfCancelling(Odd):
    name = "self-cancelling"

    async def go_on(self, _context, _task):
        raise asyncio.CancelledError
        yield ""


class Choosy(Odd):
    name = "choosy"

    async def go_on(self, _context, _task):
        raise AgentInputError("I take numbers only")
        yield ""


class Tidy(Odd):
    """Waits, and needs a moment to tidy up when it is cancelled."""

    name = "tidy"

    async def go_on(self, _context, task):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            TIDIED.append(task.run_id)
        yield ""


LET_GO: dict[str, asyncio.Event] = {}
TIDIED: list[str] = []
ALL: Final = (Stubborn, Deaf, Exiting, SelfCancelling, Choosy, Tidy)
