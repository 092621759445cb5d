"""What `hello` tells of the user whom it greets."""

import dataclasses

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model

from apps.chat.authentication import issue_token
from tests.chat.tab import Tab
from tests.chat.test_consumers import services_with

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def token():
    return [(b"authorization", b"Bearer " + issue_token(get_user_model().objects.create_user("anna").pk).encode())]


def a_small_plan(identity, default):
    """Ann's, by name."""
    return dataclasses.replace(default, open_runs_per_user=2) if identity.name == "anna" else default


def a_broken_plan(_identity, _default):
    raise LookupError("no such customer")


async def test_a_plan_that_fails_keeps_nobody_from_reading(token, settings):
    settings.TURNOUT_PLAN = "tests.chat.test_hello.a_broken_plan"
    async with services_with(open_runs_per_user=17) as services:
        tab = Tab(services, token)
        assert (await tab.message())["type"] == "websocket.accept"
        assert (await tab.frame("hello"))["limits"]["runs"] == 17
        tab.drop()
        await tab.ended()


async def test_hello_tells_the_bound_of_the_users_own_plan(token, settings):
    settings.TURNOUT_PLAN = "tests.chat.test_hello.a_small_plan"
    bob = await sync_to_async(get_user_model().objects.create_user)("bob")
    others = [(b"authorization", b"Bearer " + (await sync_to_async(issue_token)(bob.pk)).encode())]
    async with services_with(open_runs_per_user=17) as services:
        for headers, runs in ((token, 2), (others, 17)):
            tab = Tab(services, headers)
            assert (await tab.message())["type"] == "websocket.accept"
            assert (await tab.frame("hello"))["limits"]["runs"] == runs
            tab.drop()
            await tab.ended()
