import asyncio
import warnings
from functools import partial

import pytest

from apps.rollout.adapter import FactoryAdapter, resolve
from apps.rollout.models import LegacyReach
from apps.rollout.reach import LegacyRetired
from apps.rollout.seams import UnknownSeam
from apps.rollout.shims import old_entry
from apps.rollout.stages import Stage
from apps.rollout.testing import override_stage
from apps.vocabulary import Identity, PinnedPath, UserId
from tests.rollout import paths
from tests.rollout.paths import BILLING

pytestmark = pytest.mark.django_db(transaction=True)
warned = partial(pytest.warns, DeprecationWarning, match="the old way")


@old_entry("billing")
def get_client(customer, *, currency="EUR"):
    """The old client."""
    return (customer, currency)


@old_entry("billing")
async def open_client(customer):
    return customer


def test_the_old_call_works_as_before_and_warns_where_it_is_made():
    with pytest.warns(
        DeprecationWarning, match="get_client is the old way; call it through the seam 'billing'"
    ) as seen:
        assert get_client("anna", currency="CHF") == ("anna", "CHF")
    assert seen[0].filename == __file__
    assert (get_client.__name__, get_client.__doc__) == ("get_client", "The old client.")


async def test_the_old_call_works_in_asynchronous_code_and_as_a_coroutine():
    with warned():
        assert get_client("anna") == ("anna", "EUR")
    with warned():
        assert await open_client("anna") == "anna"


async def call_in_a_loop():
    get_client("anna")


CALLS = (
    lambda: get_client("anna"),
    lambda: asyncio.run(open_client("anna")),
    lambda: asyncio.run(call_in_a_loop()),
)


@pytest.mark.parametrize(("stage", "counted"), [(Stage.OFF, 0), (Stage.ON, 3)])
def test_old_calls_are_counted_from_on_up_wherever_they_are_made(stage, counted):
    with override_stage("billing", stage):
        for call in CALLS:
            with warned():
                call()
    assert LegacyReach.objects.of("billing").calls == counted


def test_at_retired_old_calls_are_refused_and_counted_wherever_they_are_made():
    with override_stage("billing", Stage.RETIRED):
        for call in CALLS:
            with warned(), pytest.raises(LegacyRetired, match="billing is retired"):
                call()
    assert LegacyReach.objects.of("billing").refused == 3


def test_the_adapter_calls_what_is_behind_the_shim_without_a_warning(monkeypatch):
    monkeypatch.setattr(paths, "old_billing", old_entry("billing")(paths.old_billing))
    assert resolve(BILLING.legacy) is paths.old_billing.__wrapped__

    async def open_gate(_seam):
        pass  # the real one would leave its thread's connection behind

    adapter = FactoryAdapter((BILLING,), reach=open_gate)

    async def use():
        async with adapter.use(BILLING, Identity(UserId(1), "anna"), PinnedPath("legacy", 0), "x") as client:
            return client

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(use()) == ("old", "x")


def test_a_shim_of_a_seam_that_is_gone_says_so():
    with warned(), pytest.raises(UnknownSeam):
        old_entry("gone")(lambda: None)()
