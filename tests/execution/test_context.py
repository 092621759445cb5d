import asyncio
import gc
from contextlib import asynccontextmanager

import pytest

from apps.agents.base import HistoryMessage
from apps.agents.tools import ToolBeltClosed, Toolbox
from apps.execution.budget import RunBudget
from apps.execution.context import ContextNotOpen, Grant, UserExecutionContext, newest_within
from tests.execution.running_room import ANN


def a_grant(**changes):
    given = {
        "identity": ANN,
        "run_id": "run-1",
        "thread_id": "thread-1",
        "agent_name": "metronome",
        "create_agent": object,
        "history": (),
        "model": None,
        "open_tools": Toolbox([]).open_belt,
        "budget": RunBudget(2, 1_000),
        "cleanup_timeout_s": 0.05,
    }
    return Grant(**(given | changes))


@asynccontextmanager
async def noting(notes, name):
    notes.append(f"+{name}")
    try:
        yield name
    finally:
        notes.append(f"-{name}")


async def hang():
    await asyncio.get_running_loop().create_future()


async def test_what_was_opened_is_closed_once_and_in_reverse():
    notes = []
    async with UserExecutionContext(a_grant()) as context:
        assert await context.enter("a", noting(notes, "a")) == "a"
        await context.enter("b", noting(notes, "b"))
    await context.close()
    assert notes == ["+a", "+b", "-b", "-a"]
    assert context.failures == ()


async def test_a_clean_up_that_raises_is_reported_and_the_others_still_run(caplog):
    notes = []

    async def broken():
        raise LookupError("no")

    async with UserExecutionContext(a_grant()) as context:
        await context.enter("a", noting(notes, "a"))
        await context.call_on_close("broken", broken)
        await context.enter("b", noting(notes, "b"))
    assert notes == ["+a", "+b", "-b", "-a"]
    assert [(failure.name, failure.reason) for failure in context.failures] == [("broken", "LookupError")]
    assert "broken" in caplog.text


async def test_a_clean_up_that_hangs_is_given_up_at_its_deadline_and_the_others_still_run():
    notes = []
    async with UserExecutionContext(a_grant()) as context:
        await context.enter("a", noting(notes, "a"))
        await context.call_on_close("hanging", hang)
    assert notes == ["+a", "-a"]
    [failure] = context.failures
    assert (failure.name, failure.reason) == ("hanging", "not done after 0.05 s, given up")
    [left_over] = context.left_over
    await asyncio.wait({left_over})
    assert left_over.cancelled()


async def test_a_clean_up_that_ignores_its_cancellation_does_not_hold_up_the_end():
    release = asyncio.Event()

    async def stubborn():
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    notes = []
    async with UserExecutionContext(a_grant()) as context:
        await context.enter("a", noting(notes, "a"))
        await context.call_on_close("stubborn", stubborn)
    assert notes == ["+a", "-a"]
    [left_over] = context.left_over
    assert not left_over.done()
    release.set()
    await left_over


async def test_cancelling_the_run_does_not_reach_a_clean_up_that_is_at_work():
    notes, cleaning, go_on = [], asyncio.Event(), asyncio.Event()

    async def slow():
        cleaning.set()
        await go_on.wait()
        notes.append("slow is done")

    async def run():
        async with UserExecutionContext(a_grant(cleanup_timeout_s=5.0)) as context:
            await context.enter("a", noting(notes, "a"))
            await context.call_on_close("slow", slow)

    task = asyncio.create_task(run())
    await cleaning.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert notes == ["+a", "slow is done", "-a"]


async def test_a_run_that_raises_or_is_cancelled_closes_everything():
    for wreck in (LookupError("no"), asyncio.CancelledError()):
        notes = []

        async def run(notes=notes, wreck=wreck):
            async with UserExecutionContext(a_grant()) as context:
                await context.enter("a", noting(notes, "a"))
                raise wreck

        with pytest.raises(type(wreck)):
            await run()
        assert notes == ["+a", "-a"]


async def test_what_must_be_left_by_the_task_that_entered_it_is():
    tasks = []

    @asynccontextmanager
    async def particular():
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(30), asyncio.TaskGroup():
            yield
        tasks.append(asyncio.current_task())

    async with UserExecutionContext(a_grant()) as context:
        await context.enter("particular", particular())
    assert context.failures == ()
    assert tasks[0] is tasks[1] is not asyncio.current_task()


async def test_what_entering_raises_is_raised_where_it_was_entered():
    @asynccontextmanager
    async def refusing():
        raise LookupError("no")
        yield

    async with UserExecutionContext(a_grant()) as context:
        with pytest.raises(LookupError):
            await context.enter("refusing", refusing())
    assert context.failures == ()


async def test_an_entering_that_is_cancelled_is_undone():
    notes, entering = [], asyncio.Event()

    @asynccontextmanager
    async def slow():
        try:
            entering.set()
            await hang()
            yield
        finally:
            notes.append("undone")

    async def run():
        async with UserExecutionContext(a_grant()) as context:
            await context.enter("slow", slow())

    task = asyncio.create_task(run())
    await entering.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert notes == ["undone"]


async def test_a_context_is_opened_once_and_not_after_it_was_closed():
    context = UserExecutionContext(a_grant())
    with pytest.raises(ContextNotOpen):
        _ = context.tools
    with pytest.raises(ContextNotOpen):
        await context.enter("early", noting([], "early"))
    async with context:
        with pytest.raises(ContextNotOpen):
            await context.__aenter__()
    with pytest.raises(ContextNotOpen):
        await context.enter("late", noting([], "late"))


async def test_tools_are_closed_with_the_context():
    async with UserExecutionContext(a_grant()) as context:
        assert context.tools.declarations == ()
    with pytest.raises(ToolBeltClosed):
        _ = context.tools.declarations


async def test_a_context_that_is_forgotten_while_it_is_open_is_a_warning():
    async def forget():
        context = UserExecutionContext(a_grant())
        await context.__aenter__()
        tasks = [held.task for held in context._held]
        context._held.clear()
        return tasks

    async def forget_and_collect():
        tasks = await forget()
        gc.collect()
        return tasks

    with pytest.warns(ResourceWarning, match="collected while it was open"):
        tasks = await forget_and_collect()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_it_shows_counts_and_nothing_of_its_user():
    async with UserExecutionContext(a_grant()) as context:
        assert repr(context) == "<UserExecutionContext open run=run-1 held=1 failures=0>"
    assert repr(context) == "<UserExecutionContext closed run=run-1 held=0 failures=0>"


@pytest.mark.parametrize("name", ["identity", "history", "model", "tools", "usage", "run_id", "agent_name"])
async def test_what_a_run_was_given_cannot_be_exchanged(name):
    async with UserExecutionContext(a_grant()) as context:
        with pytest.raises(AttributeError):
            setattr(context, name, None)
        with pytest.raises(AttributeError):
            context._grant.identity = None


def history_of(*parts):
    return [HistoryMessage(role, text, str(number)) for number, (role, text) in enumerate(parts)]


def test_of_a_long_history_the_newest_messages_are_kept_in_order():
    history = history_of(*[("user", str(number)) for number in range(10)])
    assert [message.text for message in newest_within(history, 3, 1_000)] == ["7", "8", "9"]
    assert newest_within([], 3, 1_000) == ()


def test_a_history_is_bounded_in_bytes_of_its_text():
    history = history_of(("user", "ä" * 10), ("user", "ä" * 10), ("user", "b"))
    assert [message.text for message in newest_within(history, 40, 21)] == ["ä" * 10, "b"]
    assert newest_within(history, 40, 0) == ()


def test_a_history_never_begins_with_the_answer_of_a_tool_whose_call_is_cut_off():
    history = history_of(("assistant", "calls"), ("tool", "42"), ("tool", "43"), ("user", "thanks"))
    assert [message.text for message in newest_within(history, 3, 1_000)] == ["thanks"]
