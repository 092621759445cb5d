"""The worst case of memory: a sum of the bounds that is told at a start, and that flooding agents stay below."""

import dataclasses
import gc
import tracemalloc

import pytest

from apps.realtime.publisher import PublisherLimits
from apps.vocabulary import Identity, UserId
from project.apps import check_memory
from project.configuration import Configuration
from project.memory import in_words, readable, shares, worst_case_bytes
from tests.execution.running_room import eventually, open_running_room

BOUNDS = Configuration()


@pytest.mark.parametrize(
    "bound",
    [
        "connections",
        "window_bytes",
        "inbox_bytes",
        "run_slots",
        "publisher_bytes",
        "run_bytes",
        "history_bytes",
        "commit_bytes_per_user",
    ],
)
def test_every_bound_that_multiplies_raises_the_worst_case(bound):
    larger = dataclasses.replace(BOUNDS, **{bound: getattr(BOUNDS, bound) * 2})
    assert worst_case_bytes(larger) > worst_case_bytes(BOUNDS)


def test_the_check_says_the_sum_and_the_largest_share_and_is_no_warning():
    (message,) = check_memory()
    assert in_words(BOUNDS).split(" of memory")[0] in message.msg
    assert not message.is_serious()


def test_sizes_are_readable():
    assert [readable(size) for size in (12, 2_048, 3 * 2**20, 5 * 2**30)] == [
        "12 bytes",
        "2.0 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]


@pytest.mark.django_db(transaction=True)
async def test_agents_that_flood_make_a_process_hold_no_more_than_the_share_of_runs(time_budget):
    runs = 12
    bounds = dataclasses.replace(BOUNDS, run_slots=runs, publisher_bytes=65_536, run_bytes=1_048_576)
    limits = PublisherLimits(waiting_bytes=bounds.publisher_bytes, run_bytes=bounds.run_bytes)
    users = [Identity(UserId(number), f"user {number}") for number in range(1, runs + 1)]
    held = sum(share.bytes for share in shares(bounds) if share.number == runs)
    async with open_running_room(publisher=limits, run_slots=runs) as room, room.executing() as executor:
        for _ in time_budget("flood").rounds():
            room.tabs.entries.clear()
            room.notes.ended.clear()
            gc.collect()
            tracemalloc.start()
            try:
                started = [(user, await room.start(user, "faulty", "mode=flood after=1")) for user in users]
                while executor.census()["running"]:
                    room.tabs.entries.clear()  # what tabs are shown is theirs
                    await eventually(lambda: room.tabs.entries or not executor.census()["running"])
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert len(started) == runs
            assert peak < held, f"{readable(peak)} held, {readable(held)} allowed"
