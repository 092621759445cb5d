"""What a scrape sees."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone
from prometheus_client import Histogram
from prometheus_client.parser import text_string_to_metric_families

from apps.execution.models import Run
from apps.operations.backlog import read_backlog
from apps.operations.catalog import FAMILIES
from apps.operations.metrics import Metrics
from apps.realtime.protocol import RunStart
from apps.vocabulary import Identity, UserId
from project.composition import open_services
from project.configuration import Configuration
from tests.execution.running_room import eventually
from tests.operations.world import World


def scrape(metrics):
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {sample.name: sample for family in families for sample in family.samples}


def test_what_is_held_is_a_gauge_and_what_only_rises_a_counter():
    metrics = Metrics(lambda: {"pool.connections": 3, "log.commits_total": 12}, kind="serve", version="0.1.0")
    text = metrics.exposition().decode()
    assert "# TYPE turnout_pool_connections gauge" in text
    assert "# TYPE turnout_log_commits_total counter" in text
    assert scrape(metrics)["turnout_pool_connections"].value == 3
    assert scrape(metrics)["turnout_log_commits_total"].value == 12


def test_the_numbers_are_those_of_the_moment_of_the_scrape():
    counts = {"pool.connections": 1}
    metrics = Metrics(lambda: counts, kind="serve", version="0.1.0")
    assert scrape(metrics)["turnout_pool_connections"].value == 1
    counts["pool.connections"] = 2
    assert scrape(metrics)["turnout_pool_connections"].value == 2


def test_no_label_names_a_user_a_thread_or_a_run():
    metrics = Metrics(lambda: {"pool.connections": 1, "runs_total": 2}, kind="serve", version="0.1.0")
    assert {label for sample in scrape(metrics).values() for label in sample.labels} == {"kind", "version"}


def test_two_processes_in_one_interpreter_do_not_mix_their_numbers():
    first = Metrics(lambda: {"a": 1}, kind="serve", version="1")
    second = Metrics(lambda: {"b": 2}, kind="serve", version="1")
    assert "turnout_b" not in scrape(first)
    assert "turnout_a" not in scrape(second)


def test_one_metric_takes_what_differs_as_a_label():
    counts = {"pool.connections_closed_no_progress_total": 2, "pool.connections_closed_restarting_total": 3}
    text = Metrics(lambda: counts, kind="serve", version="1").exposition().decode()
    assert 'turnout_pool_connections_closed_total{reason="no_progress"} 2.0' in text
    assert 'turnout_pool_connections_closed_total{reason="restarting"} 3.0' in text
    assert text.count("# TYPE turnout_pool_connections_closed_total counter") == 1


def test_a_seam_and_its_path_are_two_labels():
    counts = {"switch.calls_execution_engine.legacy_total": 1, "switch.uses_execution_engine.legacy": 4}
    text = Metrics(lambda: counts, kind="serve", version="1").exposition().decode()
    assert 'turnout_switch_calls_total{path="legacy",seam="execution_engine"} 1.0' in text
    assert 'turnout_switch_uses{path="legacy",seam="execution_engine"} 4.0' in text


def test_a_histogram_shows_its_buckets_and_no_time_of_its_making():
    took = Histogram("turnout_took_seconds", "How long", buckets=(0.1, 1), registry=None)
    took.observe(0.5)
    text = Metrics(dict, kind="serve", version="1", histograms=[took]).exposition().decode()
    assert 'turnout_took_seconds_bucket{le="1.0"} 1.0' in text
    assert "turnout_took_seconds_sum 0.5" in text
    assert "_created" not in text


@pytest.mark.django_db(transaction=True)
async def test_every_count_of_a_live_process_is_in_the_catalog_and_a_run_moves_what_it_should():
    user = await get_user_model().objects.acreate_user("anna-of-the-metrics")
    async with open_services(Configuration(metrics=True), kind="test") as services:
        run = await services.database.call(admitted, services, user.pk)

        def ended():
            return 'turnout_executor_ended_total{outcome="succeeded"} 1.0' in services.metrics.exposition().decode()

        await eventually(ended)
        text = services.metrics.exposition().decode()
        census = services.metrics._census()
    unknown = [name for name in census if all(family.labels_of(name) is None for family in FAMILIES)]
    assert not unknown, f"not in apps/operations/catalog.py: {unknown}"
    found = scrape(services.metrics)
    for histogram in ("log_commit", "executor_claim_wait", "executor_run"):
        assert found[f"turnout_{histogram}_seconds_count"].value >= 1, histogram
    assert 'turnout_switch_calls_total{path="factory",seam="execution_engine"} 1.0' in text
    assert user.username not in text
    assert run not in text
    unused = [
        family.source
        for family in FAMILIES
        if not any(family.labels_of(name) is not None for name in census)
        and not family.source.startswith(("jobs.", "pool.connections_closed_"))
    ]
    assert not unused, f"in the catalog and counted by nobody: {unused}"


def admitted(services, user_id):
    identity = Identity(UserId(user_id), "anna")
    thread_id = services.conversation.create_thread(identity, "a title that nobody may see").pk
    command = RunStart(id="start", thread_id=thread_id, text="count=2 interval_ms=1", agent="metronome")
    return services.conversation.start_run(identity, command)["run_id"]


@pytest.mark.django_db
def test_the_backlog_counts_open_runs_of_all_users_and_how_long_the_oldest_waits():
    assert read_backlog() == {"runs_queued": 0, "runs_running": 0, "runs_waiting": 0, "oldest_queued_ms": 0}
    world = World()
    with transaction.atomic():
        world.running(world.user("anna"))
    assert read_backlog() == {"runs_queued": 0, "runs_running": 1, "runs_waiting": 0, "oldest_queued_ms": 0}
    with transaction.atomic():
        waiting = world.queued(world.user("bert"))
    Run.objects.filter(pk=waiting.pk).update(admitted_at=timezone.now() - timedelta(seconds=7))
    counts = read_backlog()
    assert counts["runs_queued"] == 1
    assert 7_000 <= counts["oldest_queued_ms"] < 60_000
