"""On PostgreSQL: the writer's link is cut at any byte while everybody writes. Run by test_postgresql.py."""

import asyncio
import random

import pytest
from ag_ui.core import TextMessageContentEvent, TextMessageEndEvent, TextMessageStartEvent
from django.db import connections

from tests.proxy import Proxy
from tests.realtime.logging_room import open_log_room
from tests.realtime.test_log import finished, started, text_of

pytestmark = pytest.mark.django_db(transaction=True)

USERS, WORDS, CUTS = 12, 150, 25


async def talk(publisher, lease, still_cutting):
    await publisher.publish(started(lease))
    await publisher.publish(TextMessageStartEvent(message_id="m"))
    said = 0
    while said < WORDS or still_cutting():
        await publisher.publish(TextMessageContentEvent(message_id="m", delta=f"{lease.user_id}-{said} "))
        said += 1
        await asyncio.sleep(0.002)  # as an agent's words come
    await publisher.publish(TextMessageEndEvent(message_id="m"))
    await publisher.finish(finished(lease))
    return said


async def cut_at_random(proxy, chance):
    for _ in range(CUTS):
        how = chance.choice(("up", "down", "reset", "swallow"))
        if how == "reset":
            proxy.reset()
        elif how == "swallow":
            proxy.blackhole("down")  # the server commits, and nobody hears of it
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            proxy.reset()
        else:
            cuts = proxy.cuts
            proxy.cut_after(chance.randrange(1, 20_000), how)
            async with asyncio.timeout(30):
                while proxy.cuts == cuts:  # noqa: ASYNC110 - the writer has to send so much first
                    await asyncio.sleep(0.005)
        proxy.mend()
        await asyncio.sleep(chance.uniform(0.0, 0.1))


@pytest.fixture
def through(monkeypatch):
    """New threads reach PostgreSQL through the proxy that this is called with."""
    settings = connections.settings["default"]
    server = f"{settings['HOST'] or settings['OPTIONS']['host']}/.s.PGSQL.5432"

    def reach(proxy):
        monkeypatch.setitem(settings, "HOST", "127.0.0.1")
        monkeypatch.setitem(settings, "PORT", str(proxy.port))
        monkeypatch.setitem(settings, "OPTIONS", {**settings["OPTIONS"], "host": "127.0.0.1"})

    return server, reach


async def test_a_link_that_is_cut_at_any_byte_loses_nothing_and_doubles_nothing(through, time_budget):
    chance = random.Random(time_budget("simulation").seed)
    server, reach = through
    async with Proxy(server) as proxy, open_log_room() as room:
        leases = [await room.lease(user) for user in range(1, USERS + 1)]
        reach(proxy)
        cutting = asyncio.create_task(cut_at_random(proxy, chance))
        said = await asyncio.gather(
            *(talk(room.publisher(lease), lease, lambda: not cutting.done()) for lease in leases)
        )
        await cutting
        retries = room.log.census()["commit_retries_total"]
        print(f"{proxy.cuts} cuts, {retries} commits handed over again, {sum(said)} words")
        assert proxy.cuts >= CUTS // 2
        assert retries >= CUTS // 3, "the cuts must bite"
        assert room.tabs.pages
        for lease, words in zip(leases, said, strict=True):
            entries = await room.entries(lease.user_id)
            assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
            assert text_of(entries) == "".join(f"{lease.user_id}-{word} " for word in range(words))
            assert [entry["event"]["type"] for entry in entries].count("RUN_FINISHED") == 1
