from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.rollout.comparison import Result
from apps.rollout.drawing import panels_of
from apps.rollout.picture import BUCKETS, End, Figures, Mark, figures_of, percentile, picture_of

NOW = datetime(2026, 3, 1, 9, 12, tzinfo=UTC)


def end(minutes_ago, path="legacy", outcome="clean", own_ms=100.0):
    return End(NOW - timedelta(minutes=minutes_ago), path, outcome, own_ms)


def hours(*counts):
    return [(NOW - timedelta(hours=ago), result.value, number) for ago, result, number in counts]


def test_the_window_is_the_shortest_that_holds_everything():
    for minutes, hours_wide in ((30, 1), (90, 6), (500, 24), (2_000, 168), (20_000, 720)):
        picture = picture_of([end(minutes), end(1)], [], [], NOW)
        assert picture.end - picture.begin == timedelta(hours=hours_wide)
        assert sum(stretch.legacy.runs for stretch in picture.stretches) == 2


@given(st.lists(st.floats(min_value=0, max_value=1_000), max_size=50))
def test_every_end_is_drawn_once(minutes):
    picture = picture_of([end(ago) for ago in minutes], [], [], NOW)
    assert len(picture.stretches) == BUCKETS
    assert sum(stretch.legacy.runs for stretch in picture.stretches) == len(minutes) == picture.legacy.runs


def test_each_path_has_its_failures_and_its_times():
    ends = [end(1, own_ms=n) for n in range(1, 101)] + [end(1, outcome="failed", own_ms=9_999.0)]
    assert figures_of(ends, "legacy") == Figures(101, 1, 50, 95)
    assert figures_of(ends, "factory") == Figures()
    assert Figures().failed_percent is None


def test_runs_that_were_left_by_their_users_are_neither_good_nor_bad():
    assert figures_of([end(1, outcome="left")], "legacy") == Figures()


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.95, 3), (1.0, 3)])
def test_a_percentile_is_one_of_the_values(share, value):
    assert percentile([1, 2, 3], share) == value


def test_results_and_moves_stand_where_they_were():
    results = hours((0, Result.MATCHED, 3), (5, Result.MISMATCHED, 1), (900, Result.MATCHED, 7))
    marks = [Mark(NOW - timedelta(hours=3), "move"), Mark(NOW - timedelta(days=99), "long ago")]
    picture = picture_of([end(350)], results, marks, NOW)
    assert picture.stretches[-1].compared(Result.MATCHED) == 3
    assert sum(stretch.compared(Result.MISMATCHED) for stretch in picture.stretches) == 1
    assert [(mark.label, picture.place(mark.at)) for mark in picture.marks] == [("move", 0.5)]


def test_a_seam_without_runs_has_an_empty_picture():
    assert picture_of([], [], [], NOW).is_empty
    assert not picture_of([], hours((0, Result.MATCHED, 1)), [], NOW).is_empty


def test_a_drawing_says_in_words_what_it_shows_and_styles_by_class_alone():
    ends = [end(1), end(2, "factory"), end(3, "factory", "failed"), end(30, "factory")]
    panels = panels_of(picture_of(ends, hours((0, Result.MISMATCHED, 2)), [Mark(NOW, "<moved>")], NOW))
    assert [panel.title for panel in panels] == ["Runs", "Failures", "Own time", "Comparisons"]
    assert panels[0].says == "4 runs, 75 % of them by the factory."
    assert panels[1].says == "Legacy failed in 0.0 %, the factory in 33.3 %."
    assert panels[3].says == "2 differed, 0 found legacy wrong."
    for panel in panels:
        assert f'role="img" aria-label="{panel.title}: ' in panel.svg
        assert "style=" not in panel.svg
        assert "<moved>" not in panel.svg
        assert "&lt;moved&gt;" in panel.svg


def test_what_is_drawn_stays_within_the_panel():
    for panel in panels_of(picture_of([end(n, "factory", own_ms=10.0 * n) for n in range(60)], [], [], NOW)):
        for points in panel.svg.split('points="')[1:]:
            for point in points.partition('"')[0].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= 640
                assert 0 <= y <= 150
