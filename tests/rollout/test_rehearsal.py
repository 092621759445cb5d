import json
import math
import xml.etree.ElementTree as ET
from random import Random

import pytest
from django.core.management import CommandError, call_command

from apps.rollout.audit import Move
from apps.rollout.evidence import GuardState, ObservedEnd
from apps.rollout.guardrails import GuardLimits
from apps.rollout.observations import Observation, Outcome
from apps.rollout.pictures import Chart, Line
from apps.rollout.rehearsal import Alarm, Traffic, detection, evidence_course, false_alarms, first_alarm, outcomes
from apps.rollout.watch import Watch
from apps.vocabulary import PinnedPath, UserId
from tests.rollout.paths import BILLING

SVG = "{http://www.w3.org/2000/svg}"


def test_the_same_seed_draws_the_same_runs_with_the_share_and_the_rates_asked_for():
    traffic = Traffic(share=0.3, legacy_rate=0.1, factory_rate=0.5, outage=range(100, 110))
    drawn = list(outcomes(Random(1), traffic, 20_000))
    assert drawn == list(outcomes(Random(1), traffic, 20_000))
    on_factory = [bad for factory, bad in drawn if factory]
    assert len(on_factory) / len(drawn) == pytest.approx(0.3, abs=0.02)
    assert sum(on_factory) / len(on_factory) == pytest.approx(0.5, abs=0.02)
    assert all(bad for _, bad in drawn[100:110])


def test_equal_paths_alarm_less_often_than_stated_and_a_broken_one_soon():
    random = Random(20_260)
    assert false_alarms(random, Traffic(), runs=5_000, repeats=40, threshold=1_000) <= 0.1
    found = detection(random, Traffic(factory_rate=1.0), repeats=41, threshold=1_000)
    assert (found.median_factory_runs, found.missed) == (4, 0)


def test_a_fault_that_is_mostly_not_found_in_time_has_no_median():
    found = detection(Random(1), Traffic(factory_rate=0.03), repeats=10, threshold=1_000, at_most=200)
    assert (found.median_factory_runs, found.missed) == (None, 1)


def test_an_alarm_says_how_many_runs_it_took():
    assert first_alarm(iter([(False, False)] * 9 + [(True, True)] * 20), 0.1, 1_000) == Alarm(14, 5)
    assert first_alarm(iter([(True, False)] * 99), 0.1, 1_000) is None


def test_the_course_of_the_evidence_ends_where_the_alarm_is():
    course = evidence_course(Random(5), Traffic(factory_rate=1.0), 300)
    assert course[0] == (0, 0.0)
    assert course[-1][1] > math.log(1_000)


def test_a_chart_is_valid_xml_with_words_for_who_cannot_see_it():
    chart = Chart("A < B", "What it shows & why", "runs", "%", [Line("one", [(0, 1), (10, 3)]), Line("alarm", level=2)])
    root = ET.fromstring(chart.svg())
    assert root.find(f"{SVG}title").text == "A < B"
    assert root.find(f"{SVG}desc").text == "What it shows & why"
    assert "style" not in chart.svg()
    assert [text.text for text in root.iter(f"{SVG}text")][-2:] == ["one", "alarm"]
    flat = Chart("t", "a", "x", "y", [Line("flat", [(1, 0), (1, 0)])])
    ET.fromstring(flat.svg())
    with pytest.raises(ValueError, match="a line with points"):
        Chart("t", "a", "x", "y", [Line("alarm", level=2)]).svg()


def run(capsys, *arguments):
    status = 0
    try:
        call_command("rehearse", *arguments)
    except SystemExit as ended:
        status = ended.code
    return status, capsys.readouterr().out


@pytest.mark.django_db
def test_the_command_shows_false_alarms_and_time_to_detection_and_writes_nothing_but_the_picture(capsys, tmp_path):
    picture = tmp_path / "rehearsal.svg"
    few = ("--repeats", "8", "--runs", "2000", "--picture", str(picture))
    status, text = run(capsys, BILLING.name, *few)
    assert status == 0
    assert "assumed: only 0 legacy runs were observed" in text
    assert "old against old" in text
    assert "factory fails 100.0% found after " in text
    assert ET.parse(picture).getroot().tag == f"{SVG}svg"
    assert run(capsys, BILLING.name, *few)[1] == text
    assert [model.objects.count() for model in (Move, GuardState, ObservedEnd)] == [0, 0, 0]


@pytest.mark.django_db
def test_the_rate_is_the_one_that_was_observed_of_legacy(capsys):
    ends = [
        Observation(
            UserId(user), BILLING.name, PinnedPath("legacy", 0), "x", Outcome.FAILED if user < 20 else Outcome.CLEAN
        )
        for user in range(400)
    ]
    Watch(GuardLimits(), "1").observe(ends)
    status, text = run(capsys, BILLING.name, "--repeats", "2", "--runs", "100", "--json")
    shown = json.loads(text)
    assert (status, shown["legacy_rate"], shown["legacy_rate_from"]) == (0, 0.05, "observed in 400 runs")
    assert shown["false_alarms_at_most"] == pytest.approx(0.005)


@pytest.mark.django_db
def test_what_is_no_seam_or_no_rate_is_said_so(capsys):
    assert run(capsys, "nope")[0] == 2
    for wrong in ("0", "2", "often"):
        with pytest.raises(CommandError, match="is no rate: give a number above 0, up to 1"):
            call_command("rehearse", BILLING.name, "--share", wrong)
