"""`/healthz`, `/readyz`, `/metrics`: what a load balancer and a scraper are told."""

import asyncio
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.test import AsyncClient

from apps.operations.health import Readiness, condition_check, database_check
from apps.operations.metrics import Metrics
from apps.realtime.database import DatabaseThreads

pytestmark = pytest.mark.urls("apps.operations.urls")


@pytest.fixture
def open_services(monkeypatch):
    """Put services into the slot that views read, as the composition root does."""

    def put(**services):
        monkeypatch.setattr(apps.get_app_config("execution"), "_services", SimpleNamespace(**services))

    return put


@pytest.fixture
def no_services(monkeypatch):
    monkeypatch.setattr(apps.get_app_config("execution"), "_services", None)


async def fine():
    return None


async def test_a_process_that_answers_lives_even_when_it_is_not_ready(no_services):
    answer = await AsyncClient().get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_process_without_open_services_is_not_ready_and_names_serve(no_services):
    answer = await AsyncClient().get("/readyz")
    assert answer.status_code == 503
    assert "manage.py serve" in answer.json()["failed"]["services"]


async def test_a_process_is_ready_when_every_check_passes(open_services):
    open_services(readiness=Readiness({"a": fine, "b": fine}, timeout_s=5), metrics=None)
    answer = await AsyncClient().get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "no-store" in answer["Cache-Control"]


async def test_what_is_not_ready_is_named_and_what_is_ready_is_not(open_services):
    checks = {"database": fine, "draining": condition_check(lambda: False, "this process is going away")}
    open_services(readiness=Readiness(checks, timeout_s=5), metrics=None)
    answer = await AsyncClient().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failed"] == {"draining": "this process is going away"}


async def test_a_check_that_hangs_is_not_ready_after_its_time_and_holds_up_nobody_else():
    readiness = Readiness({"stuck": asyncio.Event().wait, "fine": fine}, timeout_s=0.01)
    assert await readiness.failures() == {"stuck": "no answer within 0.01 s"}


async def test_the_cause_of_a_failure_goes_to_the_log_and_not_to_the_stranger_who_asks(caplog):
    async def broken():
        raise ConnectionError("redis://:secret@10.0.0.7 refused")

    failures = await Readiness({"layer": broken}, timeout_s=5).failures()
    assert failures == {"layer": "failed; see the log"}
    assert "secret" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_the_database_is_asked_through_the_threads_that_do_the_work():
    async with DatabaseThreads(1) as database:
        await database_check(database)()


async def test_what_only_slows_a_process_down_is_named_and_takes_it_out_of_no_rotation(open_services):
    silent = condition_check(lambda: False, "no word comes back")
    open_services(readiness=Readiness({"a": fine}, timeout_s=5, degrading={"layer": silent, "b": fine}), metrics=None)
    answer = await AsyncClient().get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "degraded": {"layer": "no word comes back"}}


async def test_metrics_are_off_unless_the_setting_allows_them(open_services, no_services):
    assert (await AsyncClient().get("/metrics")).status_code == 404
    open_services(readiness=Readiness({}, timeout_s=5), metrics=None)
    assert (await AsyncClient().get("/metrics")).status_code == 404


async def test_metrics_show_the_census_where_they_are_allowed(open_services):
    metrics = Metrics(lambda: {"pool.connections": 4}, kind="serve", version="0.1.0")
    open_services(readiness=Readiness({}, timeout_s=5), metrics=metrics)
    answer = await AsyncClient().get("/metrics")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")
    assert b"turnout_pool_connections 4.0" in answer.content


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_nothing_is_changed_by_asking(path, no_services):
    assert (await AsyncClient().post(path)).status_code == 405
