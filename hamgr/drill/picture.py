"""One drill as a picture: who acknowledged the client's writes, against the stages of the failover records.

An SVG element without colours of its own: what it is made of has classes, which the page's style colours for light,
dark and paper. Built as a tree, so that it is well formed and every text in it is escaped, whatever it says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from hamgr.drill.course import PINNED, Change, Course, Row, Span, Window, edges_of, stages_of
from hamgr.drill.summary import ms
from hamgr.drill.text import shown

WIDTH = 760
_GUTTER = 96
_RIGHT = WIDTH - 12
_TEXT = 13
_COLOURS = 6
"""Classes h0 to h5 of the page's style; more hosts than that share them."""


@dataclass(slots=True)
class Panel:
    """One stretch of time, drawn from the top down. `y`: what is drawn next lies below."""

    svg: Element
    begin_s: float
    end_s: float
    y: float

    def x(self, at_s: float) -> float:
        """Where an instant lies; what is outside lies at the edge."""
        share = (at_s - self.begin_s) / (self.end_s - self.begin_s)
        return round(_GUTTER + (_RIGHT - _GUTTER) * min(1.0, max(0.0, share)), 1)

    def has(self, at_s: float) -> bool:
        return self.begin_s <= at_s <= self.end_s


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of the picture: a writer, and the hosts whose acknowledgements stand on it."""

    title: str
    rows: tuple[Row, ...]


def picture_of(course: Course, hosts: Sequence[str]) -> Element:
    """The whole drill, and below it a close-up of gap and changes of leader. `hosts`: in the order of their colours."""
    svg = Element("svg", {"class": "course", "role": "img"})
    svg.set("aria-label", "acknowledged writes over time, and the stages of the failover")
    panel = Panel(svg, course.whole.begin_s, course.whole.end_s, 22)
    _draw_writes(panel, course, course.whole, hosts, lane_height=16)
    _draw_axis(panel)
    _draw_extract(panel, course.close)
    panel = Panel(svg, course.close.begin_s, course.close.end_s, panel.y + 40)
    top = panel.y
    _draw_writes(panel, course, course.close, hosts, lane_height=24)
    for change in course.changes:
        _draw_change(panel, change, top)
    _draw_axis(panel)
    svg.set("viewBox", f"0 0 {WIDTH} {math.ceil(panel.y + 6)}")
    return svg


def colour_of(host: str, hosts: Sequence[str]) -> str:
    """The class by which everything of that host is coloured."""
    return f"h{hosts.index(host) % _COLOURS}" if host in hosts else "h0"


def lanes_of(course: Course, window: Window, hosts: Sequence[str]) -> list[Lane]:
    """Each writer that goes where an application would on a lane, then one per host of the pinned writer.

    The lanes are those of the whole course, so that both panels have the same.
    """
    writers = dict.fromkeys(row.writer for row in course.whole.rows if row.writer != PINNED)
    lanes = [
        Lane("application" if name == "routed" else name, tuple(row for row in window.rows if row.writer == name))
        for name in writers
    ]
    pinned = {row.host: row for row in window.rows if row.writer == PINNED}
    return [*lanes, *(Lane(f"{host} pinned", (pinned[host],) if host in pinned else ()) for host in hosts)]


def _draw_writes(panel: Panel, course: Course, window: Window, hosts: Sequence[str], lane_height: float) -> None:
    """Lanes with writes, and across them the gap, two primaries, and when the fault began and ended."""
    top = panel.y
    lanes = lanes_of(course, window, hosts)
    height = len(lanes) * (lane_height + 4)
    for span in course.two_primaries:
        _draw_band(panel, span.begin_s, span.end_s, height, "two")
    _draw_band(panel, course.gap.begin_s, course.gap.end_s, height, "gap")
    for lane in lanes:
        _draw_lane(panel, lane, window, hosts, lane_height)
        panel.y += lane_height + 4
    _name_gap(panel, course.gap, top + lane_height - 4)
    for span in course.two_primaries:
        _draw_two_primaries(panel, span)
    for at_s, word in ((0.0, "fault"), (course.undone_s, "undone")):
        if at_s is not None and panel.has(at_s):
            _draw_mark(panel, at_s, word, top, before=word == "fault")


def _draw_band(panel: Panel, begin_s: float, end_s: float, height: float, kind: str) -> None:
    if end_s < panel.begin_s or begin_s > panel.end_s:
        return
    left, right = panel.x(begin_s), panel.x(end_s)
    width = max(1.0, right - left)
    _add(panel.svg, "rect", kind, x=left, y=panel.y - 2, width=round(width, 1), height=height)


def _name_gap(panel: Panel, gap: Span, y: float) -> None:
    """In the middle of what of it is in the picture, unless that is too short for the words."""
    left, right = panel.x(gap.begin_s), panel.x(gap.end_s)
    words = f"gap {ms(gap.end_s - gap.begin_s)}"
    if right - left > 8 * len(words):
        _text(panel.svg, (left + right) / 2, y, words, "word", "middle")


def _draw_two_primaries(panel: Panel, span: Span) -> None:
    """A bar of its own below the lanes: nothing may hide it."""
    if span.end_s < panel.begin_s or span.begin_s > panel.end_s:
        return
    left, right = panel.x(span.begin_s), panel.x(span.end_s)
    _add(panel.svg, "rect", "over", x=left, y=panel.y + 2, width=max(2.0, right - left), height=10)
    words = f"TWO PRIMARIES {ms(span.end_s - span.begin_s)}"
    _text(panel.svg, left - 5 if left > WIDTH / 2 else right + 5, panel.y + 12, words, "word bad", _side(left))
    panel.y += 16


def _draw_lane(panel: Panel, lane: Lane, window: Window, hosts: Sequence[str], height: float) -> None:
    base = panel.y + height
    _add(panel.svg, "line", "base", x1=_GUTTER, y1=base, x2=_RIGHT, y2=base)
    most = max((count for row in lane.rows for count in row.counts), default=0)
    for row in lane.rows:
        path = _bars(panel, window, row.counts, base, height / most) if most else ""
        if path:
            _add(panel.svg, "path", f"acks {colour_of(row.host, hosts)}", d=path)
    titled = _text(panel.svg, _GUTTER - 8, base - 4, lane.title, "label", "end")
    if lane.title.endswith(" pinned"):
        titled.set("class", f"label {colour_of(lane.title.removesuffix(' pinned'), hosts)}")


def _bars(panel: Panel, window: Window, counts: Sequence[int], base: float, unit: float) -> str:
    """A bar for each bin that saw a write, equal neighbours as one."""
    path: list[str] = []
    position = 0
    while position < len(counts):
        count, first = counts[position], position
        while position < len(counts) and counts[position] == count:
            position += 1
        if count:
            left = panel.x(window.begin_s + first * window.bin_s)
            right = panel.x(window.begin_s + position * window.bin_s)
            path.append(f"M{left:g} {base:g}v{-max(1.5, count * unit):.1f}h{max(1.0, right - left):.1f}V{base:g}z")
    return "".join(path)


def _draw_mark(panel: Panel, at_s: float, word: str, top: float, *, before: bool) -> None:
    """A line down the lanes with its word above, on the side on which there is room."""
    x = panel.x(at_s)
    _add(panel.svg, "line", "mark", x1=x, y1=top - 6, x2=x, y2=panel.y)
    is_left = x > _GUTTER + 60 if before else x > _RIGHT - 60
    _text(panel.svg, x + (-4 if is_left else 4), top - 7, word, "word", "end" if is_left else "start")


def _draw_extract(panel: Panel, window: Window) -> None:
    """What of the whole the panel below shows."""
    left, right = panel.x(window.begin_s), panel.x(window.end_s)
    y = panel.y + 6
    points = f"{left},{y} {right},{y} {_RIGHT},{y + 16} {_GUTTER},{y + 16}"
    _add(panel.svg, "polygon", "extract", points=points)
    panel.y = y + 16


def _draw_change(panel: Panel, change: Change, top: float) -> None:
    record = change.record
    panel.y += 20
    head = (
        f"term {shown(record.get('term'))}: {shown(record.get('former')) or 'nobody'} to {shown(record.get('leader'))}"
    )
    _text(panel.svg, _GUTTER, panel.y, f"{head}, {shown(record.get('cause'))}", "head")
    if change.zero_s is None:
        panel.y += 18
        _text(panel.svg, _GUTTER, panel.y, "no write was acknowledged there, so its stages have no place here", "word")
        return
    for stage in stages_of(record):
        panel.y += 18
        _draw_stage(panel, stage["name"], edges_of(stage), change)
    writable = next((edges_of(stage) for stage in stages_of(record) if stage["name"] == "writable"), None)
    if writable is not None:
        x = panel.x(change.zero_s + writable[1])
        _add(panel.svg, "line", "align", x1=x, y1=top, x2=x, y2=panel.y + 4)
        panel.y += 18
        led = f"{shown(record.get('leader'))}/{shown(record.get('timeline'))}"
        words = f"dotted: writable ends where {led} first acknowledged a write"
        _text(panel.svg, *((x - 4, panel.y) if x > WIDTH / 2 else (x + 4, panel.y)), words, "word", _side(x))


def _draw_stage(panel: Panel, name: str, edges: tuple[float, float] | None, change: Change) -> None:
    _text(panel.svg, _GUTTER - 8, panel.y, shown(name), "label", "end")
    if edges is None or change.zero_s is None:
        _text(panel.svg, _GUTTER, panel.y, "unknown: nobody measured it", "word")
        return
    left, right = (panel.x(change.zero_s + edge) for edge in edges)
    over = name in _names(change.record.get("over_budget"))
    width = max(2.0, round(right - left, 1))
    _add(panel.svg, "rect", "stage over" if over else "stage", x=left, y=panel.y - 11, width=width, height=13)
    words = ms_fine(edges[1] - edges[0]) + (" OVER BUDGET" if over else "")
    if right < _RIGHT - 150:
        _text(panel.svg, right + 5, panel.y, words, "word")
    else:
        _text(panel.svg, left - 5, panel.y, words, "word", "end")


def ms_fine(seconds: float) -> str:
    """A stage's length: a tenth of a millisecond counts where it is short."""
    return f"{seconds * 1000:.1f} ms" if abs(seconds) < 0.1 else ms(seconds)


def _names(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def _side(x: float) -> str:
    return "end" if x > WIDTH / 2 else "start"


def _draw_axis(panel: Panel) -> None:
    """Ticks at round times from the fault."""
    panel.y += 6
    length_s = panel.end_s - panel.begin_s
    step_s = _round_step(length_s / 8)
    unit: Callable[[float], str] = (
        (lambda at_s: f"{at_s * 1000:g} ms") if length_s < 3 else (lambda at_s: f"{at_s:g} s")
    )
    _add(panel.svg, "line", "axis", x1=_GUTTER, y1=panel.y, x2=_RIGHT, y2=panel.y)
    for number in range(math.ceil(panel.begin_s / step_s), math.floor(panel.end_s / step_s) + 1):
        at_s = round(number * step_s, 6)
        x = panel.x(at_s)
        _add(panel.svg, "line", "axis", x1=x, y1=panel.y, x2=x, y2=panel.y + 4)
        _text(panel.svg, x, panel.y + 16, unit(at_s), "tick", "end" if x > _RIGHT - 20 else "middle")
    panel.y += 18


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _text(parent: Element, x: float, y: float, words: str, kind: str, anchor: str = "start") -> Element:
    element = _add(parent, "text", kind, x=round(x, 1), y=round(y, 1))
    element.set("text-anchor", anchor)
    element.text = shown(words)
    return element


def _add(parent: Element, tag: str, kind: str, **numbers: float | str) -> Element:
    attributes = {name: value if isinstance(value, str) else f"{value:g}" for name, value in numbers.items()}
    return SubElement(parent, tag, {"class": kind, **attributes})
