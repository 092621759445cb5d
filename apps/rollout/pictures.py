"""A line chart as SVG, drawn on the server: no script, no style attribute, readable in light and dark. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 42, 44
COLOURS = ("#2563eb", "#c2410c", "#0f766e", "#7c3aed", "#64748b")
INK = "#64748b"  # has a contrast of 4.5 on white and of 3 on black


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; `level` draws a dashed line at one height instead."""

    name: str
    points: Sequence[tuple[float, float]] = ()
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its words. `alt` says in one sentence what it shows."""

    title: str
    alt: str
    x: str
    y: str
    lines: Sequence[Line]

    def svg(self) -> str:
        """The picture. Raises ValueError where no line has a point."""
        xs = [x for line in self.lines for x, _ in line.points]
        ys = [y for line in self.lines for _, y in line.points]
        ys += [line.level for line in self.lines if line.level is not None]
        if not xs:
            raise ValueError("a chart needs a line with points")
        across, up = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT), _Axis(min(0.0, *ys), max(ys), HEIGHT - BOTTOM, TOP)
        font = f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {font}>',
            f"<title>{escape(self.title)}</title><desc>{escape(self.alt)}</desc>",
            f'<text x="{LEFT}" y="16" font-weight="600">{escape(self.title)}</text>',
            *_grid(across, up),
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x)}</text>',
            f'<text x="{LEFT}" y="34">{escape(self.y)}</text>',
        ]
        for number, line in enumerate(self.lines):
            parts += _drawn(line, COLOURS[number % len(COLOURS)], across, up, TOP + 14 + 18 * number)
        return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Axis:
    """Numbers from `low` to `high`, at pixels from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return round(self.begin + (value - self.low) / span * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        """About five round numbers."""
        span = (self.high - self.low) or 1.0
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)  # noqa: PLR2004 - ticks
        first = math.ceil(self.low / step)
        return [index * step for index in range(first, math.floor(self.high / step) + 1)]


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="{INK}" stroke-opacity="0.25"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    below = f'y="{HEIGHT - BOTTOM + 16}" text-anchor="middle"'
    return parts + [f'<text x="{across.at(tick)}" {below}>{tick:g}</text>' for tick in across.ticks()]


def _drawn(line: Line, colour: str, across: _Axis, up: _Axis, legend_y: float) -> list[str]:
    if line.level is None:
        path, dashes = "M" + "L".join(f"{across.at(x)} {up.at(y)}" for x, y in line.points), ""
    else:
        path, dashes = f"M{LEFT} {up.at(line.level)}H{WIDTH - RIGHT}", ' stroke-dasharray="6 4"'
    legend = WIDTH - RIGHT + 10
    return [
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>',
        f'<path d="M{legend} {legend_y - 4}h18" stroke="{colour}" stroke-width="2"{dashes}/>',
        f'<text x="{legend + 24}" y="{legend_y}">{escape(line.name)}</text>',
    ]
