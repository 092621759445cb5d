"""Process reports, and who is told to be silent."""

from datetime import timedelta

import pytest
from django.db import IntegrityError
from django.utils import timezone

from apps.operations.models import KEPT_DAYS, ProcessReport

FIRST = {"host": "web-1", "pid": 41, "kind": "serve", "version": "0.1.0"}

pytestmark = pytest.mark.django_db


def age(process_id, seconds):
    """Let the last report of a process be `seconds` old."""
    ProcessReport.objects.filter(pk=process_id).update(reported_at=timezone.now() - timedelta(seconds=seconds))


def test_each_report_counts_up_and_replaces_what_was_held():
    ProcessReport.objects.report("p", FIRST, {"pool.connections": 1})
    ProcessReport.objects.report("p", FIRST, {"pool.connections": 5})
    report = ProcessReport.objects.get(pk="p")
    assert (report.beat, report.counts, report.ending) == (2, {"pool.connections": 5}, "")
    assert str(report) == "serve 41 on web-1"


def test_a_process_is_silent_once_its_report_is_too_old_and_never_both_silent_and_running():
    ProcessReport.objects.report("fresh", FIRST, {})
    ProcessReport.objects.report("old", FIRST, {})
    age("old", 30)
    assert [report.pk for report in ProcessReport.objects.silent(10)] == ["old"]
    assert [report.pk for report in ProcessReport.objects.running(10)] == ["fresh"]


def test_the_age_of_a_report_is_told_by_the_database():
    ProcessReport.objects.report("p", FIRST, {})
    age("p", 30)
    assert 29 < ProcessReport.objects.with_age().get(pk="p").age.total_seconds() < 40


def test_a_process_that_ended_in_order_is_neither_silent_nor_running():
    ProcessReport.objects.report("p", FIRST, {}, ProcessReport.Ending.STOPPED)
    age("p", 30)
    assert not ProcessReport.objects.silent(10).exists()
    assert not ProcessReport.objects.running(10).exists()
    assert ProcessReport.objects.get(pk="p").ended_at is not None


def test_a_process_that_was_declared_lost_and_reports_again_is_running():
    ProcessReport.objects.report("p", FIRST, {})
    assert ProcessReport.objects.all().mark_lost() == 1
    assert ProcessReport.objects.get(pk="p").ending == ProcessReport.Ending.LOST
    ProcessReport.objects.report("p", FIRST, {})
    assert [report.pk for report in ProcessReport.objects.running(10)] == ["p"]


def test_only_reports_of_processes_that_ended_long_ago_are_forgotten():
    for process_id in ("running", "just", "long"):
        ProcessReport.objects.report(process_id, FIRST, {})
    ProcessReport.objects.exclude(pk="running").mark_lost()
    ProcessReport.objects.filter(pk="long").update(ended_at=timezone.now() - timedelta(days=KEPT_DAYS + 1))
    age("running", 86_400 * (KEPT_DAYS + 1))
    assert ProcessReport.objects.all().forget_old() == 1
    assert {report.pk for report in ProcessReport.objects.all()} == {"running", "just"}


def test_a_report_that_ended_says_when():
    ProcessReport.objects.report("p", FIRST, {})
    with pytest.raises(IntegrityError):
        ProcessReport.objects.filter(pk="p").update(ending=ProcessReport.Ending.LOST)
