"""A process reports that it lives, what it holds, and that it ended; no failure ends the reporting."""

import asyncio
import os

import pytest

from apps.operations.heartbeat import Heartbeat
from apps.operations.models import ProcessReport
from apps.realtime.database import DatabaseThreads
from apps.vocabulary import new_id

pytestmark = pytest.mark.django_db(transaction=True)

FAST_S = 0.005  # seconds between beats in these tests


class CountingCensus:
    """A census that lets a test wait for the n-th report instead of sleeping."""

    def __init__(self):
        self.calls = 0
        self.fail_on = set()
        self._waiters = []

    def __call__(self):
        self.calls += 1
        for number, event in self._waiters:
            if self.calls >= number:
                event.set()
        if self.calls in self.fail_on:
            raise RuntimeError("a part could not be counted")
        return {"pool.connections": self.calls}

    async def called(self, number):
        event = asyncio.Event()
        if self.calls >= number:
            return
        self._waiters.append((number, event))
        await event.wait()


def heartbeat(database, census, process_id, interval_s=FAST_S):
    return Heartbeat(database, process_id, census, interval_s, kind="serve", version="0.1.0")


async def read(database, process_id):
    return await database.call(ProcessReport.objects.get, pk=process_id)


async def test_entering_reports_at_once_and_leaving_says_that_the_process_ended():
    process_id = new_id()
    async with DatabaseThreads(1) as database:
        async with heartbeat(database, CountingCensus(), process_id, interval_s=3600):
            report = await read(database, process_id)
            assert (report.pid, report.kind, report.version) == (os.getpid(), "serve", "0.1.0")
            assert (report.beat, report.ending, report.counts) == (1, "", {"pool.connections": 1})
        report = await read(database, process_id)
        assert (report.beat, report.ending, report.counts) == (2, "stopped", {"pool.connections": 2})


async def test_it_goes_on_reporting_what_is_held_now():
    process_id, census = new_id(), CountingCensus()
    async with DatabaseThreads(1) as database, heartbeat(database, census, process_id):
        await census.called(4)  # the third report has been written before the fourth is counted
        report = await read(database, process_id)
        assert report.beat >= 3
        assert report.counts["pool.connections"] >= 3


async def test_a_report_that_fails_is_logged_and_the_next_one_is_tried(caplog):
    process_id, census = new_id(), CountingCensus()
    census.fail_on = {2, 3}
    async with DatabaseThreads(1) as database, heartbeat(database, census, process_id) as beating:
        await census.called(5)
        assert beating.census()["failures_total"] == 2
        assert beating.census()["beats_total"] >= 2
        assert (await read(database, process_id)).beat >= 2
    assert caplog.text.count("could not report itself; trying again") == 2


async def test_a_database_that_refuses_the_report_does_not_end_the_process(caplog):
    census = CountingCensus()
    async with DatabaseThreads(1) as database:
        # The column takes no null, so every write of this report is refused by the database itself.
        async with Heartbeat(database, new_id(), census, FAST_S, kind=None, version="0.1.0") as beating:
            await census.called(3)
            assert beating.census()["failures_total"] >= 2
        assert repr(beating).startswith("<Heartbeat beats=0 failures=")
    assert "could not report itself" in caplog.text


async def test_after_leaving_no_task_is_left():
    before = asyncio.all_tasks()
    async with DatabaseThreads(1) as database, heartbeat(database, CountingCensus(), new_id()):
        assert len(asyncio.all_tasks()) == len(before) + 1
    assert asyncio.all_tasks() == before
