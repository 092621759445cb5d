"""Agents that do what an agent should not, beyond what the built-in `faulty` does."""

import asyncio
import sys
import threading
import time
from typing import Final

from ag_ui.core import (
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallStartEvent,
)

from apps.agents.base import Agent, AgentInputError, ApprovalNeeded, ApprovalRequest
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


class Patient(Tidy):
    """May be asked again when its process ends."""

    name = "patient"
    restartable = True


class Asking(Agent):
    """Says a word, asks for approval of one call, and says what was decided when it is resumed."""

    name = "asking"
    title = "Asking"
    description = "For tests. Input: what to do."

    async def run(self, context, task):
        message_id = new_id()
        yield TextMessageStartEvent(message_id=message_id, role="assistant")
        if task.resume:
            (decision,) = task.resume
            word = "done" if decision.approved else "not done"
            said = [turn.text for turn in context.history if turn.role == "assistant"]
            text = f"{word}: {decision.tool} {decision.arguments} {decision.comment} after {said}"
            yield TextMessageContentEvent(message_id=message_id, delta=text)
            yield TextMessageEndEvent(message_id=message_id)
            return
        yield TextMessageContentEvent(message_id=message_id, delta="May I?")
        yield TextMessageEndEvent(message_id=message_id)
        call_id, arguments = new_id(), f'{{"what":"{task.text}"}}'
        yield ToolCallStartEvent(tool_call_id=call_id, tool_call_name="write", parent_message_id=message_id)
        yield ToolCallArgsEvent(tool_call_id=call_id, delta=arguments)
        yield ToolCallEndEvent(tool_call_id=call_id)
        context.usage.add(input_tokens=2, output_tokens=2)
        raise ApprovalNeeded(ApprovalRequest(call_id, "write", arguments, f"Write {task.text}?"))


class Sleeper(Odd):
    """Blocks its thread. Input: `step SECONDS` for ever, `once SECONDS`, `hold` until the test lets it go, `exit`."""

    name = "sleeper"
    blocking = True

    async def go_on(self, _context, task):
        how, _, seconds = task.text.partition(" ")
        match how:
            case "exit":
                sys.exit(3)
            case "hold":
                LET_GO[task.run_id] = release = threading.Event()
                release.wait()
            case "once":
                time.sleep(float(seconds))  # noqa: ASYNC251 - this is what it is for
        yield "slept "
        while how == "step":
            time.sleep(float(seconds))  # noqa: ASYNC251 - this is what it is for
            yield "slept "


LET_GO: dict[str, asyncio.Event | threading.Event] = {}
TIDIED: list[str] = []
ALL: Final = (Stubborn, Deaf, Exiting, SelfCancelling, Choosy, Tidy, Patient, Asking, Sleeper)
