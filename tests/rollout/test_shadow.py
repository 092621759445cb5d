import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest
from django.db import connection

from apps.rollout.comparison import Comparison, Result, Vote
from apps.rollout.mismatches import ComparisonCount, Mismatch, MismatchShape
from apps.rollout.recordings import RecordedWork, Recording
from apps.rollout.shadow import Replay, Shadow, ShadowLimits
from apps.vocabulary import UserId
from tests.rollout.paths import RANKING

pytestmark = pytest.mark.django_db(transaction=True)

LIMITS = {
    "slots": 1,
    "timeout_s": 5.0,
    "waiting": 10,
    "queued": 10,
    "share": 1.0,
    "kept_minutes": 60,
    "poll_s": 0.05,
    "stop_s": 2.0,
}


def says(text):
    async def path(_payload):
        return Vote([{"type": "STEP_STARTED", "stepName": text}])

    return path


def live(payload):
    return Vote([{"type": "STEP_STARTED", "stepName": payload}])


def work(text="old", user=1):
    return RecordedWork(UserId(user), "ranking", "work", text)


@asynccontextmanager
async def shadow_of(factory, private=None, busy=lambda: False, chance=lambda: 0.0, **limits):
    replay = Replay(RANKING, live, factory, private)
    async with Shadow({"ranking": replay}, ShadowLimits(**LIMITS | limits), busy, chance) as shadow:
        yield shadow


async def until(condition):
    """Waits for what another thread writes: rows are read until they say so."""

    def look():
        try:
            return condition()
        finally:
            connection.close()

    async with asyncio.timeout(10):
        while not await asyncio.to_thread(look):
            pass


def results():
    return {name: number for name, number in ComparisonCount.objects.totals("ranking").items() if number}


@pytest.mark.parametrize(
    ("factory", "private", "found"),
    [
        ("old", "old", {"matched": 1}),
        ("new", "old", {"mismatched": 1}),
        ("new", "new", {"legacy_wrong": 1}),
        ("new", "other", {"ignored": 1}),
    ],
)
async def test_what_was_recorded_is_replayed_on_both_paths_compared_and_forgotten(factory, private, found):
    async with shadow_of(says(factory), says(private)) as shadow:
        assert shadow.wants()
        shadow.offer(work)
        await until(lambda: results() == found)
        await until(lambda: not Recording.objects.exists())
    assert shadow.census()["replayed_total"] == 1


async def test_legacy_is_not_replayed_where_both_paths_agree():
    async def never(_payload):
        raise AssertionError("the third vote was asked for")

    async with shadow_of(says("old"), never) as shadow:
        shadow.offer(work)
        await until(lambda: results() == {"matched": 1})


async def test_a_path_that_raises_is_a_result():
    async def raises(_payload):
        raise ZeroDivisionError

    async with shadow_of(raises, says("old")) as shadow:
        shadow.offer(work)
        await until(lambda: results() == {"mismatched": 1})
    assert await asyncio.to_thread(shapes) == ["main: END instead of STEP_STARTED"]


def shapes():
    try:
        return list(MismatchShape.objects.values_list("shape", flat=True))
    finally:
        connection.close()


async def test_a_factory_that_hangs_costs_its_deadline_and_is_a_result():
    async def hangs(_payload):
        await asyncio.Event().wait()

    async with shadow_of(hangs, says("old"), timeout_s=0.05) as shadow:
        shadow.offer(work)
        await until(lambda: results() == {"mismatched": 1})
    assert shadow.census()["timed_out_total"] == 1


async def test_a_factory_that_blocks_holds_up_neither_the_loop_nor_the_end_of_the_process():
    blocked, release = threading.Event(), threading.Event()

    async def blocks(_payload):
        blocked.set()
        release.wait(10)
        return Vote()

    begun = time.monotonic()
    async with shadow_of(blocks, stop_s=0.05) as shadow:
        shadow.offer(work)
        assert await asyncio.to_thread(blocked.wait, 10)
        for _ in range(20):
            shadow.offer(work)  # never waits
        assert shadow.census()["replaying"] == 1
        assert shadow.census()["shed_total"] == 10
    assert time.monotonic() - begun < 5
    release.set()
    for thread in shadow._threads:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_the_shadow_is_the_first_to_be_left_out():
    async with shadow_of(says("old"), busy=lambda: True) as shadow:
        assert not shadow.wants()
        assert shadow.census()["shed_total"] == 1


@pytest.mark.parametrize(("drawn", "wanted"), [(0.0, True), (0.24, True), (0.25, False), (0.99, False)])
async def test_a_share_of_the_work_is_drawn(drawn, wanted):
    async with shadow_of(says("old"), chance=lambda: drawn, share=0.25) as shadow:
        assert shadow.wants() is wanted
    assert shadow.census()["shed_total"] == 0, "what was not drawn was not shed"


async def test_what_was_not_recorded_whole_is_left_out():
    async with shadow_of(says("old")) as shadow:
        shadow.offer(lambda: None)
        await until(lambda: shadow.census()["shed_total"] == 1)


async def test_what_another_process_left_is_replayed():
    await asyncio.to_thread(kept, work())
    async with shadow_of(says("old")):
        await until(lambda: results() == {"matched": 1})


def kept(each):
    try:
        Recording.objects.keep(each, 10)
    finally:
        connection.close()


async def test_what_was_found_of_a_user_who_is_gone_by_now_goes_too():
    def gone():
        try:
            Recording.objects.owned(UserId(1)).delete()
        finally:
            connection.close()

    async def slow(_payload):
        await asyncio.to_thread(gone)
        return Vote()

    async with shadow_of(slow, says("old")) as shadow:
        shadow.offer(work)
        await until(lambda: shadow.census()["replayed_total"] == 1)
    assert await asyncio.to_thread(nothing_found)


def nothing_found():
    try:
        return not (ComparisonCount.objects.exists() or Mismatch.objects.exists())
    finally:
        connection.close()


async def test_a_recording_that_nobody_can_read_does_not_come_back():
    def unreadable(_payload):
        raise ValueError("no JSON")

    replay = Replay(RANKING, unreadable, says("old"))
    limits = ShadowLimits(**LIMITS)
    async with Shadow({"ranking": replay}, limits, lambda: False, lambda: 0.0) as shadow:
        shadow.offer(work)
        await until(lambda: shadow.census()["failed_total"] == 1)
        await until(lambda: not Recording.objects.exists())


async def test_results_that_need_no_replay_are_stored_with_how_often_they_were_met():
    leak = Comparison(Result.LEGACY_WRONG, "recipients of TEXT_MESSAGE_CONTENT: a stranger receives it")
    async with shadow_of(says("old")) as shadow:
        shadow.compared(UserId(1), "ranking", "work", {Comparison(Result.MATCHED): 7, leak: 3})
        await until(lambda: results() == {"matched": 7, "legacy_wrong": 3})
