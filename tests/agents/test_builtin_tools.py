from datetime import date, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.agents.builtin_tools import MAX_HITS, ThreadHit, builtin_tools, utc_now
from apps.agents.tools import Toolbox, ToolRefused
from apps.vocabulary import RunId, ThreadId
from tests.agents.worlds import ADA, BOB, NOW, Threads, World


async def ask_clock(**arguments):
    return orjson.loads(await World().tools.call("clock", arguments, "call-1"))


async def test_the_clock_tells_the_time_that_it_is_given():
    assert await ask_clock() == {
        "now": "2026-03-01 09:12",
        "timezone": "UTC",
        "day": "2026-03-01",
        "weekday": "Sunday",
    }


async def test_the_clock_knows_timezones_and_that_it_may_be_another_day_there():
    there = await ask_clock(timezone="Pacific/Honolulu")
    assert (there["now"], there["day"], there["weekday"]) == ("2026-02-28 23:12", "2026-02-28", "Saturday")


@pytest.mark.parametrize("timezone", ["Atlantis", "../../etc/passwd", "/etc/passwd", "", "\x00", "Europe", "x" * 64])
async def test_an_unknown_timezone_is_refused_with_the_form_that_is_accepted(timezone):
    with pytest.raises(ToolRefused, match="IANA name"):
        await ask_clock(timezone=timezone)


@given(st.dates(), st.dates())
async def test_days_between_two_days_are_counted(day, until):
    answer = await ask_clock(day=day.isoformat(), until=until.isoformat())
    assert day + timedelta(days=answer["days_until"]) == until


@given(st.dates(), st.integers(-1_000_000, 1_000_000))
async def test_a_shifted_day_is_right_or_refused(day, shift_days):
    try:
        expected = day + timedelta(days=shift_days)
    except OverflowError:
        with pytest.raises(ToolRefused, match="outside the years"):
            await ask_clock(day=day.isoformat(), shift_days=shift_days)
    else:
        answer = await ask_clock(day=day.isoformat(), shift_days=shift_days)
        assert (date.fromisoformat(answer["day"]), answer["weekday"]) == (expected, f"{expected:%A}")


def test_production_has_a_clock_with_a_timezone():
    assert utc_now().utcoffset() == timedelta(0)


async def test_the_calculator_refuses_with_the_reason():
    with pytest.raises(ToolRefused, match="division by zero"):
        await World().tools.call("calculator", {"expression": "1/0"}, "call-1")


async def test_a_search_finds_the_users_own_threads_only():
    threads = Threads(user1="ada's invoices", user2="bob's invoices")
    for identity in (ADA, BOB):
        world = World(identity=identity, threads=threads)
        (hit,) = orjson.loads(await world.tools.call("search_threads", {"query": "invoices"}, "call-1"))
        assert hit["title"] == f"{identity.name}'s invoices"


async def test_a_search_result_stays_readable_however_long_the_threads_are():
    async def search(user_id, query, limit, besides):
        return [ThreadHit("id", "\U0001f600" * 10_000, '"' * 10_000)] * 1_000

    toolbox = Toolbox(builtin_tools(lambda: NOW, search))
    belt = toolbox.open_belt(ADA, RunId("run"), ThreadId("thread"))
    assert len(orjson.loads(await belt.call("search_threads", {"query": "x", "limit": MAX_HITS}, "call-1"))) == MAX_HITS


def test_without_a_search_there_is_no_search_tool():
    assert [tool.name for tool in builtin_tools(lambda: NOW)] == ["calculator", "clock"]
