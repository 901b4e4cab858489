"""A sweep as a picture: above the gap, below needless failovers, over the same values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10

from hamgr.sim.forecast.sweep import Point, Sweep
from hamgr.sim.svg import GRID, INK, PALE, Canvas

WIDTH, HIGH, LEFT, RIGHT, TOP = 980, 290, 120, 40, 96
BETWEEN = 92
BLUE, BAND, RED, GREEN = "#1f5fa8", "#c9dcf2", "#c0392b", "#2e7d32"
DECADES_DOWN = 3
Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: where it is, and where a value of it goes."""

    top: float
    x: Scale
    y: Scale

    @property
    def bottom(self) -> float:
        return self.top + HIGH


def draw_sweep(sweep: Sweep, points: Sequence[Point], present: float, members: int) -> Canvas:
    """`present`: the value of the configuration, marked in both panels."""
    canvas = Canvas(WIDTH, TOP + 2 * HIGH + BETWEEN + 76, f"What {sweep.key} gains and costs")
    canvas.text(LEFT - 96, 32, f"What {sweep.key} gains and costs", size=20, bold=True)
    words = f"{members} members. Shorter: a lost primary is replaced sooner. Longer: fewer failovers for nothing"
    canvas.text(LEFT - 96, 56, words, fill=PALE, size=13)
    low, high = points[0].value, points[-1].value
    x = _linear(low, high, LEFT, WIDTH - RIGHT)
    _gaps(canvas, points, x, sweep.key)
    _needless(canvas, points, x, sweep.key)
    if low <= present <= high:
        for top in (TOP, TOP + HIGH + BETWEEN):
            canvas.line([(x(present), top), (x(present), top + HIGH)], stroke=GREEN, width=1.5, dash="5 4")
        canvas.text(x(present) + 6, TOP + 14, f"this configuration: {sweep.key} {present:g}", fill=GREEN, size=12)
    return canvas


def _gaps(canvas: Canvas, points: Sequence[Point], x: Scale, key: str) -> None:
    seen = [(point.value, point.gap) for point in points if point.gap is not None]
    longest = max((gap.worst for _, gap in seen), default=1.0)
    top = _round_up(longest)
    panel = Panel(TOP, x, _linear(0.0, top, TOP + HIGH, TOP))
    title = "Seconds without a primary after its host is lost"
    _frame(canvas, panel, points, title, [(top * part / 5, f"{top * part / 5:g} s") for part in range(6)], key)
    above = [(x(value), panel.y(gap.worst)) for value, gap in seen]
    below = [(x(value), panel.y(gap.p50)) for value, gap in seen]
    canvas.area([*above, *reversed(below)], fill=BAND)
    canvas.line(below, stroke=BLUE, width=2.5)
    for at_x, at_y in below:
        canvas.dot(at_x, at_y, 3.5, fill=BLUE)
    if seen:
        words = "line: half of them are within; band: up to the worst"
        canvas.text(WIDTH - RIGHT - 8, panel.bottom - 14, words, anchor="end", fill=BLUE)


def _needless(canvas: Canvas, points: Sequence[Point], x: Scale, key: str) -> None:
    most = max((point.needless_per_year for point in points), default=0.0)
    decade = _decade_above(most)
    top, panel_top = float(10**decade), TOP + HIGH + BETWEEN
    panel = Panel(panel_top, x, _logarithmic(decade, decade - DECADES_DOWN, panel_top, panel_top + HIGH))
    marks = [(float(10**each), _often(each)) for each in range(decade - DECADES_DOWN, decade + 1)]
    _frame(canvas, panel, points, "Needless failovers of the cluster", marks, key)
    floor = top / 10**DECADES_DOWN
    run: list[tuple[float, float]] = []
    for point in points:
        at_x = x(point.value)
        if point.needless_per_year >= floor:
            run.append((at_x, panel.y(point.needless_per_year)))
            continue
        _draw_run(canvas, run)
        run = []
        canvas.text(at_x, panel.bottom - 8, "less", anchor="middle", size=11, fill=RED)
    _draw_run(canvas, run)


def _draw_run(canvas: Canvas, run: Sequence[tuple[float, float]]) -> None:
    canvas.line(run, stroke=RED, width=2.5)
    for at_x, at_y in run:
        canvas.dot(at_x, at_y, 3.5, fill=RED)


def _frame(
    canvas: Canvas, panel: Panel, points: Sequence[Point], title: str, marks: Sequence[tuple[float, str]], key: str
) -> None:
    canvas.text(LEFT, panel.top - 12, title, size=14, bold=True)
    for value, words in marks:
        canvas.line([(LEFT, panel.y(value)), (WIDTH - RIGHT, panel.y(value))], stroke=GRID)
        canvas.text(LEFT - 8, panel.y(value) + 4, words, anchor="end", size=12)
    last_x = float("-inf")
    for point in points:
        at_x = panel.x(point.value)
        canvas.line([(at_x, panel.bottom), (at_x, panel.bottom + 5)], stroke=INK)
        if at_x - last_x > 24:
            canvas.text(at_x, panel.bottom + 20, f"{point.value:g}", anchor="middle", size=12)
            last_x = at_x
    canvas.line([(LEFT, panel.top), (LEFT, panel.bottom), (WIDTH - RIGHT, panel.bottom)], stroke=INK)
    canvas.text((LEFT + WIDTH - RIGHT) / 2, panel.bottom + 40, f"{key}, seconds", anchor="middle", size=13)


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    width = (high - low) or 1.0
    return lambda value: start + (value - low) / width * (end - start)


def _logarithmic(top_decade: int, low_decade: int, top: float, bottom: float) -> Scale:
    return lambda value: top + (top_decade - _log10(value)) / (top_decade - low_decade) * (bottom - top)


def _log10(value: float) -> float:
    """To a tenth of a pixel, which is all that is drawn."""
    return round(log10(value), 4)


def _decade_above(value: float) -> int:
    """The smallest power of ten that is greater, from a millionth to a million."""
    return next((each for each in range(-5, 7) if value < 10.0**each), 7)


def _round_up(value: float) -> float:
    """A number that five steps divide well."""
    for base in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 30.0, 40.0, 50.0, 75.0, 100.0, 200.0, 500.0):
        if value <= base:
            return base
    return value


def _often(decade: int) -> str:
    """A power of ten a year, in words."""
    if decade >= 0:
        return f"{10**decade} a year" if decade < 4 else f"1e{decade} a year"
    return f"1 in {10**-decade} years" if decade > -5 else f"1 in 1e{-decade} years"
