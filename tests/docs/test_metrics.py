"""The page on metrics, the catalog, and what parts measure say the same."""

import re

from django.core.management import get_commands

from apps.execution import timings
from apps.execution.states import ENDED, RunStatus
from apps.operations.catalog import FAMILIES
from apps.realtime import log
from apps.realtime.connection import Health
from tests.docs.pages import code, page

METRICS = page("reference/metrics.md")
SECTIONS = ("Runs", "Tabs", "The log", "The switch, and the database")
NEVER = {"user", "user_id", "username", "thread", "thread_id", "run", "run_id", "address", "text", "agent", "title"}


def test_every_metric_is_documented_with_type_unit_labels_and_meaning_and_no_other():
    documented = [row for section in SECTIONS for row in METRICS.rows(section)]
    assert sorted(documented) == sorted(
        [
            f"`{family.name}`",
            "counter" if family.is_counter else "gauge",
            family.unit,
            ", ".join(f"`{label}`" for label in family.labels) or "none",
            family.meaning,
        ]
        for family in FAMILIES
    )


def test_every_histogram_is_documented_with_its_buckets():
    documented = {code(row[0])[0]: row[3] for row in METRICS.rows("Histograms")}
    measured = {
        "turnout_log_commit_seconds": log._COMMIT_SECONDS,
        "turnout_executor_claim_wait_seconds": timings.WAIT_SECONDS,
        "turnout_executor_run_seconds": timings.RUN_SECONDS,
    }
    assert documented == {name: ", ".join(f"{bound:g}" for bound in bounds) for name, bounds in measured.items()}


def test_every_label_is_documented_and_none_can_name_a_user_a_thread_or_a_run():
    documented = {code(row[0])[0]: set(code(row[1])) for row in METRICS.rows("Metrics")}
    assert documented.keys() == {label for family in FAMILIES for label in family.labels}
    assert not documented.keys() & NEVER
    assert documented["outcome"] == ENDED | {RunStatus.WAITING}
    assert documented["health"] == {health.value for health in Health}


def test_every_metric_that_a_how_to_names_exists():
    histograms = {code(row[0])[0] + suffix for row in METRICS.rows("Histograms") for suffix in ("", "_bucket")}
    known = {family.name for family in FAMILIES} | histograms | {"turnout_process_info"}
    for name in ("how-to/observe.md", "how-to/runbook.md"):
        assert set(re.findall(r"turnout_[a-z_]+", page(name).text)) <= known, name


def test_the_runbook_names_settings_and_commands_that_exist():
    text = page("how-to/runbook.md").text
    settings = {code(row[0])[0] for row in page("reference/settings.md").rows()}
    assert set(re.findall(r"TURNOUT_[A-Z_]+", text)) <= settings
    assert set(re.findall(r"manage\.py (\w+)", text)) <= set(get_commands())
