"""What one connection may have waiting: so many commands, and so many bytes."""

import pytest
from django.contrib.auth import get_user_model

from apps.chat.authentication import issue_token
from project.composition import open_services
from project.configuration import Configuration
from tests.chat.tab import Tab, blocked_database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def token():
    anna = get_user_model().objects.create_user("anna")
    return [(b"authorization", b"Bearer " + issue_token(anna.pk).encode())]


def services_with(**bounds):
    return open_services(Configuration(**bounds), kind="test")


def cancel(number):
    return {"type": "run.cancel", "id": f"c{number}", "run_id": "no-such-run"}


async def test_an_inbox_that_is_full_ends_the_connection(token):
    async with services_with(database_threads=1, inbox_commands=2, command_burst=2, command_rate_per_s=1e9) as services:
        tab = await Tab(services, token).subscribed()
        async with blocked_database(services):
            tab.send(cancel(1), {"type": "ping", "t": 1})
            assert (await tab.frame())["t"] == 1  # so that the first is at work
            tab.send(cancel(2), cancel(3), {"type": "ping", "t": 2})
            assert (await tab.frame())["t"] == 2
            tab.send(cancel(4))
            bye = await tab.frame()
        assert bye["code"] == 4429
        tab.drop()
        await tab.ended()


async def test_an_inbox_is_full_by_bytes_too_and_has_room_again_when_commands_are_done(token):
    bounds = {"database_threads": 1, "frame_bytes": 2_000, "text_bytes": 1_900, "inbox_bytes": 2_000}
    async with services_with(**bounds, command_rate_per_s=1e9) as services:
        tab = await Tab(services, token).subscribed()
        said = {"type": "run.start", "thread_id": "none", "text": "t" * 900}
        large = [said | {"id": f"c{number}"} for number in range(1, 10)]
        for number in (0, 1):
            async with blocked_database(services):
                tab.send(large[2 * number], {"type": "ping", "t": number})
                assert (await tab.frame())["t"] == number  # so that it is at work, and waits no more
                tab.send(large[2 * number + 1])
            assert {(await tab.reply())["id"], (await tab.reply())["id"]} == {f"c{2 * number + n}" for n in (1, 2)}
        async with blocked_database(services):
            tab.send(cancel(6), {"type": "ping", "t": 6})
            assert (await tab.frame())["t"] == 6
            tab.send(*large[6:9])
            assert (await tab.frame())["code"] == 4429
        tab.drop()
        await tab.ended()
