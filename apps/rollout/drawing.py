"""A picture as SVG, made on the server: no script draws it, and no style stands in it but by class.

Each panel says in words what it shows, for those who do not see it, and lines differ by their dashes as well as by
their colours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from apps.rollout.comparison import Result
from apps.rollout.picture import Picture, Stretch

WIDTH: Final = 640
HEIGHT: Final = 150
LEFT, RIGHT, TOP, BOTTOM = 48, 632, 10, 124  # of the drawn area

type Value = Callable[[Stretch], float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one layer of bars; `style` names its class."""

    name: str
    style: str
    value: Value


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing: title, one sentence of what it shows, and the drawing itself."""

    title: str
    says: str
    legend: tuple[tuple[str, str], ...]
    svg: SafeString


def panels_of(picture: Picture) -> tuple[Panel, ...]:
    """The four drawings of the console."""
    both = (picture.legacy, picture.factory)
    runs = sum(figures.runs for figures in both)
    share = 100 * picture.factory.runs / runs if runs else 0
    rates = [_percent(figures.failed_percent) for figures in both]
    times = [_ms(figures.p95_ms) for figures in both]
    differing = sum(stretch.compared(Result.MISMATCHED) for stretch in picture.stretches)
    leaks = sum(stretch.compared(Result.LEGACY_WRONG) for stretch in picture.stretches)
    return (
        _panel(picture, "Runs", f"{runs} runs, {share:.0f} % of them by the factory.", _RUNS, "", stacked=True),
        _panel(picture, "Failures", f"Legacy failed in {rates[0]}, the factory in {rates[1]}.", _FAILURES, " %"),
        _panel(picture, "Own time", f"95 % stayed within {times[0]} on legacy, {times[1]} on the factory.", _TIMES, ""),
        _panel(
            picture, "Comparisons", f"{differing} differed, {leaks} found legacy wrong.", _RESULTS, "", stacked=True
        ),
    )


_RUNS = (
    Series("factory", "factory", lambda stretch: stretch.factory.runs),
    Series("legacy", "legacy", lambda stretch: stretch.legacy.runs),
)
_FAILURES = (
    Series("legacy", "legacy", lambda stretch: stretch.legacy.failed_percent),
    Series("factory", "factory", lambda stretch: stretch.factory.failed_percent),
)
_TIMES = (
    Series("legacy, 95 %", "legacy", lambda stretch: stretch.legacy.p95_ms),
    Series("factory, 95 %", "factory", lambda stretch: stretch.factory.p95_ms),
    Series("legacy, half", "legacy faint", lambda stretch: stretch.legacy.p50_ms),
    Series("factory, half", "factory faint", lambda stretch: stretch.factory.p50_ms),
)
_RESULTS = (
    Series("matched", "matched", lambda stretch: stretch.compared(Result.MATCHED)),
    Series("ignored", "ignored", lambda stretch: stretch.compared(Result.IGNORED)),
    Series("diverged", "diverged", lambda stretch: stretch.compared(Result.DIVERGED)),
    Series("mismatched", "mismatched", lambda stretch: stretch.compared(Result.MISMATCHED)),
    Series("legacy wrong", "wrong", lambda stretch: stretch.compared(Result.LEGACY_WRONG)),
)


def _panel(
    picture: Picture, title: str, says: str, series: Sequence[Series], unit: str, *, stacked: bool = False
) -> Panel:
    legend = tuple((each.name, each.style) for each in series)
    return Panel(title, says, legend, _svg(picture, title, says, series, unit, stacked=stacked))


def _svg(picture: Picture, title: str, says: str, series: Sequence[Series], unit: str, *, stacked: bool) -> SafeString:
    values = [[each.value(stretch) or 0 for each in series] for stretch in picture.stretches]
    top = _round_up(max(((sum(row) if stacked else max(row)) for row in values), default=0))
    drawn = _bars(picture, series, top) if stacked else _lines(picture, series, top)
    return format_html(
        '<svg class="panel" viewBox="0 0 {} {}" role="img" aria-label="{}: {}">'
        '<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/><line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>'
        '<text class="tick" x="{}" y="{}">{}{}</text><text class="tick" x="{}" y="{}">0</text>{}{}{}</svg>',
        *(WIDTH, HEIGHT, title, says, LEFT, BOTTOM, RIGHT, BOTTOM, LEFT, TOP, RIGHT, TOP),
        *(LEFT - 4, TOP + 8, f"{top:g}", unit, LEFT - 4, BOTTOM, _times(picture), _marks(picture), drawn),
    )


def _bars(picture: Picture, series: Sequence[Series], top: float) -> SafeString:
    width = (RIGHT - LEFT) / len(picture.stretches)
    rows = []
    for number, stretch in enumerate(picture.stretches):
        floor = 0.0
        for each in series:
            value = each.value(stretch) or 0
            if value:
                height = _height(value, top)
                y = BOTTOM - _height(floor, top) - height
                rows.append(
                    (each.style, f"{LEFT + number * width + 1:.1f}", f"{y:.1f}", f"{width - 2:.1f}", f"{height:.1f}")
                )
                floor += value
    return format_html_join("", '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>', rows)


def _lines(picture: Picture, series: Sequence[Series], top: float) -> SafeString:
    width = (RIGHT - LEFT) / len(picture.stretches)
    rows: list[tuple[str, str, str]] = []
    for each in series:
        points = [
            (LEFT + (number + 0.5) * width, BOTTOM - _height(value, top))
            for number, stretch in enumerate(picture.stretches)
            if (value := each.value(stretch)) is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        rows.append((each.style, each.style, path))
    lines = format_html_join("", '<polyline class="line {}" data-path="{}" points="{}"/>', rows)
    dots = [(style, *point.split(",")) for style, _, path in rows for point in path.split() if len(path.split()) == 1]
    return lines + format_html_join("", '<circle class="{}" cx="{}" cy="{}" r="2.5"/>', dots)


def _marks(picture: Picture) -> SafeString:
    rows = [
        (f"{x:.1f}", TOP, f"{x:.1f}", BOTTOM, mark.label)
        for mark in picture.marks
        for x in (LEFT + picture.place(mark.at) * (RIGHT - LEFT),)
    ]
    return format_html_join("", '<line class="mark" x1="{}" y1="{}" x2="{}" y2="{}"><title>{}</title></line>', rows)


def _times(picture: Picture) -> SafeString:
    shape = "%H:%M" if (picture.end - picture.begin).days < 1 else "%d %b"
    rows = [
        ("start", LEFT, HEIGHT - 8, f"{picture.begin:{shape}}"),
        ("end", RIGHT, HEIGHT - 8, f"{picture.end:{shape}}"),
    ]
    return format_html_join("", '<text class="time {}" x="{}" y="{}">{}</text>', rows)


def _height(value: float, top: float) -> float:
    return value / top * (BOTTOM - TOP)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 and so on; 1 for nothing."""
    step = 1.0
    while step < value:
        step *= 2.5 if f"{step:g}"[0] == "2" else 2
    return step


def _percent(value: float | None) -> str:
    return "no run" if value is None else f"{value:.1f} %"


def _ms(value: float | None) -> str:
    return "nothing measured" if value is None else f"{value:.0f} ms"
