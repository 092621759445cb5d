import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.rollout.adapter import FactoryAdapter, resolve
from apps.rollout.audit import DeniedUser
from apps.rollout.models import Flag, SeamFlagQuerySet
from apps.rollout.moves import move
from apps.rollout.reach import LegacyReach, LegacyRetired, reach_legacy
from apps.rollout.seams import UnknownSeam
from apps.rollout.stages import BUCKETS, Placement, Stage, bucket_of
from apps.vocabulary import Identity, PinnedPath, UserId
from tests.rollout import paths
from tests.rollout.conftest import identity_of
from tests.rollout.paths import BILLING, BROKEN, RANKING, SEAMS, SEARCH

ANNA = Identity(UserId(1), "anna")
LEGACY = PinnedPath("legacy", 3)
FACTORY = PinnedPath("factory", 4)


async def open_gate(seam):
    """Lets legacy be reached, without a database."""


@pytest.fixture
def adapter():
    return FactoryAdapter(SEAMS, reach=open_gate)


async def test_the_pinned_path_is_called_with_the_arguments(adapter):
    async with adapter.use(BILLING, ANNA, LEGACY, 1, 2) as made:
        assert made == ("old", 1, 2)
    async with adapter.use(BILLING, ANNA, FACTORY, 1) as made:
        assert made == ("new", 1)


async def test_a_context_manager_is_entered_and_closed_with_the_block(adapter):
    closed: list[str] = []
    async with adapter.use(SEARCH, ANNA, FACTORY, closed) as made:
        assert (made, closed) == ("new", [])
    assert closed == ["new"]


async def test_a_context_manager_is_closed_when_the_block_fails():
    closed: list[str] = []

    @asynccontextmanager
    async def opened():
        try:
            yield "opened"
        finally:
            closed.append("closed")

    adapter = FactoryAdapter(SEAMS, bind={"billing": opened})
    with pytest.raises(ZeroDivisionError):
        async with adapter.use(BILLING, ANNA, FACTORY):
            raise ZeroDivisionError
    assert closed == ["closed"]
    assert adapter.open(BILLING, "factory") == 0


async def test_what_is_awaitable_is_awaited():
    async def build(name):
        await asyncio.sleep(0)
        return f"built {name}"

    async with FactoryAdapter(SEAMS, bind={"billing": build}).use(BILLING, ANNA, FACTORY, "it") as made:
        assert made == "built it"


async def test_what_a_path_raises_reaches_the_caller_as_it_is():
    def broken():
        raise LookupError("no such client")

    with pytest.raises(LookupError, match="no such client"):
        async with FactoryAdapter(SEAMS, bind={"billing": broken}).use(BILLING, ANNA, FACTORY):
            pass


async def test_calls_and_open_uses_are_counted_for_each_path(adapter):
    async with adapter.use(BILLING, ANNA, LEGACY):
        async with adapter.use(BILLING, ANNA, FACTORY):
            assert (adapter.open(BILLING, "legacy"), adapter.open(BILLING, "factory")) == (1, 1)
        assert (adapter.open(BILLING, "legacy"), adapter.open(BILLING, "factory")) == (1, 0)
    assert (adapter.calls(BILLING, "legacy"), adapter.calls(BILLING, "factory")) == (1, 1)
    assert repr(adapter) == "<FactoryAdapter seams=3 open=0 calls: billing.factory=1, billing.legacy=1>"


@pytest.mark.django_db
def test_a_seam_without_a_row_is_at_its_declared_default(adapter):
    assert adapter.choose_paths(ANNA) == {
        "billing": PinnedPath("legacy", 0),
        "search": PinnedPath("factory", 0),
        "ranking": PinnedPath("factory", 0),
    }


@pytest.mark.django_db
def test_the_next_choice_obeys_a_move_and_carries_its_version(adapter, anna):
    move("billing", 0, Placement(Stage.ON), anna, "go")
    assert adapter.choose_paths(ANNA)["billing"] == PinnedPath("factory", 1)
    move("billing", 1, Placement(Stage.OFF), anna, "back")
    assert adapter.choose_paths(ANNA)["billing"] == PinnedPath("legacy", 2)


@pytest.mark.django_db
def test_a_ramp_serves_exactly_the_users_whose_bucket_is_in_the_share(adapter, anna):
    move("billing", 0, Placement.of(Stage.RAMP, Decimal(30)), anna, "go")
    salt = Flag.objects.get(name="billing").salt
    for n in range(1, 200):
        expected = "factory" if bucket_of("billing", salt, UserId(n)) < 0.3 * BUCKETS else "legacy"
        assert adapter.choose_paths(Identity(UserId(n), "n"))["billing"].path == expected


@pytest.mark.django_db
def test_the_chosen_users_groups_and_staff_are_served_by_the_factory_from_the_first_ramp(adapter, anna, make_user):
    listed, member, staff, other = (
        make_user("listed"),
        make_user("member"),
        make_user("staff", is_staff=True),
        make_user("other", is_superuser=True),
    )
    member.groups.add(Group.objects.create(name="pilots"))
    move("billing", 0, Placement(Stage.RAMP, 0), anna, "go")
    flag = Flag.objects.get(name="billing")
    flag.users.add(listed)
    flag.groups.add(*member.groups.all())
    flag.staff = True
    flag.save()
    served = {
        user.username: adapter.choose_paths(identity_of(user))["billing"].path
        for user in (listed, member, staff, other)
    }
    assert served == {"listed": "factory", "member": "factory", "staff": "factory", "other": "legacy"}
    assert {user.username for user in (listed, member, staff, other) if flag.is_active_for_user(user)} == {
        "listed",
        "member",
        "staff",
    }


@pytest.mark.django_db
def test_a_denied_user_is_served_by_legacy_with_a_row_and_without(adapter, anna):
    DeniedUser.objects.create(seam="search", user_id=1, by_name="ben", why="show")
    assert adapter.choose_paths(ANNA)["search"].path == "legacy"
    move("search", 0, Placement(Stage.RAMP, BUCKETS), anna, "all by share")
    assert adapter.choose_paths(ANNA)["search"].path == "legacy"
    assert adapter.choose_paths(Identity(UserId(2), "ben"))["search"].path == "factory"


@pytest.mark.django_db
def test_a_seam_serves_nobody_by_its_factory_whom_a_seam_it_requires_serves_by_legacy(adapter):
    DeniedUser.objects.create(seam="search", user_id=1, by_name="ben", why="show")
    assert adapter.choose_paths(ANNA)["ranking"].path == "legacy"
    assert adapter.choose_paths(Identity(UserId(2), "ben"))["ranking"].path == "factory"


@pytest.mark.django_db
def test_what_a_ramp_alone_needs_is_not_put_together_before_one_is_there(adapter, anna, monkeypatch):
    asked = []
    with_chosen = SeamFlagQuerySet.with_chosen

    def counted(rows, user_id):
        asked.append(user_id)
        return with_chosen(rows, user_id)

    monkeypatch.setattr(SeamFlagQuerySet, "with_chosen", counted)
    move("billing", 0, Placement(Stage.ON), anna, "go")
    adapter.choose_paths(ANNA)
    assert asked == []
    move("billing", 1, Placement.of(Stage.RAMP, Decimal(30)), anna, "back")
    adapter.choose_paths(ANNA)
    assert asked == [ANNA.user_id]


@pytest.mark.django_db
def test_without_seams_there_is_nothing_to_choose():
    assert FactoryAdapter(()).choose_paths(ANNA) == {}


@pytest.mark.django_db
def test_a_choice_for_all_seams_costs_two_queries_and_a_third_while_one_is_at_ramp(adapter, anna):
    move("billing", 0, Placement(Stage.ON), anna, "go")
    with CaptureQueriesContext(connection) as queries:
        adapter.choose_paths(ANNA)
    assert len(queries) == 2
    move("billing", 1, Placement.of(Stage.RAMP, Decimal(30)), anna, "back")
    with CaptureQueriesContext(connection) as queries:
        adapter.choose_paths(ANNA)
    assert len(queries) == 3


@pytest.mark.django_db(transaction=True)
async def test_a_run_in_flight_keeps_its_path_while_the_stage_moves(adapter, anna):
    read = asyncio.to_thread
    pinned = (await read(_closing, adapter.choose_paths, ANNA))["billing"]
    async with adapter.use(BILLING, ANNA, pinned) as before:
        await read(_closing, move, "billing", 0, Placement(Stage.ON), anna, "go")
        async with adapter.use(BILLING, ANNA, pinned) as same:
            assert before == same == ("old",)
    pinned = (await read(_closing, adapter.choose_paths, ANNA))["billing"]
    async with adapter.use(BILLING, ANNA, pinned) as after:
        assert after == ("new",)


@pytest.mark.django_db(transaction=True)
async def test_without_a_pin_the_stage_is_read_now(anna):
    async def read_paths(identity):
        return await asyncio.to_thread(_closing, adapter.choose_paths, identity)

    adapter = FactoryAdapter(SEAMS, read_paths=read_paths, reach=open_gate)
    async with adapter.use(BILLING, ANNA, None) as made:
        assert made == ("old",)
    await asyncio.to_thread(_closing, move, "billing", 0, Placement(Stage.ON), anna, "go")
    async with adapter.use(BILLING, ANNA, None) as made:
        assert made == ("new",)


def _closing(function, *arguments):
    try:
        return function(*arguments)
    finally:
        connection.close()


async def test_a_seam_that_was_not_given_is_unknown():
    adapter = FactoryAdapter((BILLING,))
    with pytest.raises(UnknownSeam):
        adapter.use(SEARCH, ANNA, FACTORY)
    with pytest.raises(UnknownSeam, match="search"):
        FactoryAdapter((BILLING,), bind={"search": print})


def test_a_missing_path_or_requirement_fails_at_start_up_and_not_in_a_run():
    with pytest.raises(ImproperlyConfigured, match="lost requires elsewhere"):
        FactoryAdapter(BROKEN)
    with pytest.raises(ImproperlyConfigured, match="search"):
        FactoryAdapter((RANKING,))
    with pytest.raises(ImproperlyConfigured, match=r"tests.rollout.paths.gone cannot be imported"):
        resolve("tests.rollout.paths.gone")
    with pytest.raises(ImproperlyConfigured, match="something to call"):
        resolve("tests.rollout.paths.NO_SEAMS")


def test_a_path_may_name_a_method_of_a_class():
    assert resolve("tests.rollout.paths.Search.new") is paths.Search.new


@pytest.mark.django_db(transaction=True)
async def test_reaching_legacy_is_counted_from_on_on_and_refused_once_the_seam_is_retired(anna):
    adapter = FactoryAdapter(SEAMS, reach=lambda seam: asyncio.to_thread(_closing, reach_legacy, seam))

    async def called():
        async with adapter.use(BILLING, ANNA, LEGACY) as made:
            return made

    async def counted():
        return await asyncio.to_thread(_closing, LegacyReach.objects.of, "billing")

    assert await called() == ("old",)
    assert (await counted()).calls == 0
    await asyncio.to_thread(_closing, move, "billing", 0, Placement(Stage.ON), anna, "go")
    assert await called() == ("old",)
    await asyncio.to_thread(_closing, move, "billing", 1, Placement(Stage.RETIRED), anna, "done")
    with pytest.raises(LegacyRetired, match=r"tests.rollout.paths.old_billing is not called any more: call tests"):
        await called()
    row = await counted()
    assert (row.calls, row.refused) == (2, 1)
    assert adapter.calls(BILLING, "legacy") == 2, "what was refused was not called"


@pytest.mark.django_db
def test_the_count_of_legacy_calls_begins_anew_when_the_seam_comes_to_on(anna):
    move("billing", 0, Placement(Stage.ON), anna, "go")
    reach_legacy(BILLING)
    reach_legacy(BILLING)
    assert LegacyReach.objects.of("billing").calls == 2
    move("billing", 1, Placement(Stage.OFF), anna, "back")
    reach_legacy(BILLING)
    assert LegacyReach.objects.of("billing").calls == 2
    move("billing", 2, Placement(Stage.ON), anna, "again")
    assert LegacyReach.objects.of("billing").calls == 0


@pytest.mark.django_db
def test_at_retired_even_a_denied_user_is_served_by_the_factory(adapter, anna):
    DeniedUser.objects.create(seam="billing", user_id=1, by_name="ben", why="show")
    move("billing", 0, Placement(Stage.ON), anna, "go")
    assert adapter.choose_paths(ANNA)["billing"].path == "legacy"
    move("billing", 1, Placement(Stage.RETIRED), anna, "done")
    assert adapter.choose_paths(ANNA)["billing"].path == "factory"
