"""The course of one drill: acknowledged writes over time, thinned, beside what was done and what the records say. Pure.

Seconds from the fault on the client's clock (CLOCK_MONOTONIC of the machine that drills). However long a drill was,
its course has a bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hamgr.drill.verdict import Ack, Leadership, Verdict, leaderships_of, longest_gap

WHOLE_BINS = 240
CLOSE_BINS = 480
"""So that in a second a client that writes every 4 ms shows each write."""

_SHORTEST_CLOSE_UP_S = 0.5
_PADDING = 0.15
"""Of a close-up's length, at each end."""

PINNED = "pinned"
"""The writer that writes to each host by itself; every other one goes where an application would."""


@dataclass(frozen=True, slots=True)
class Row:
    """How many rows each bin's time saw acknowledged to a writer by a host."""

    writer: str
    host: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in bins of equal length. Hosts that acknowledged nothing in it have no row."""

    begin_s: float
    bin_s: float
    bins: int
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.begin_s) and math.isfinite(self.bin_s) and self.bin_s > 0):
            raise ValueError("a window begins at a finite time and has bins of a finite length above 0")
        if not 0 < self.bins <= max(WHOLE_BINS, CLOSE_BINS):
            raise ValueError(f"a window has 1 to {max(WHOLE_BINS, CLOSE_BINS)} bins")
        if any(len(row.counts) != self.bins or min(row.counts) < 0 for row in self.rows):
            raise ValueError("each row of a window has one count of 0 or more for each bin")

    @property
    def end_s(self) -> float:
        return self.begin_s + self.bin_s * self.bins


@dataclass(frozen=True, slots=True)
class Span:
    """From and until when something lasted, and what it was."""

    begin_s: float
    end_s: float
    what: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of leader: the product's record, and where its zero lies in the course.

    A record counts from the fault as the new leader's host knows it, on that host's clock. What both know is the new
    leader's first commit: `zero_s` puts the end of `writable` at the first write that it acknowledged to any client.
    So stages stand some milliseconds late at most: a client has to find the new leader first. None: the client
    never wrote there, or the record does not say when it was writable.
    """

    record: Mapping[str, Any]
    zero_s: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """What a picture of one drill is made from."""

    end_s: float
    """When the verdict was taken."""
    undone_s: float | None
    """When the fault was taken back; None where there was nothing to take back."""
    gap: Span
    """The longest time without an acknowledged write of the application; up to the end where they never came back."""
    two_primaries: tuple[Span, ...]
    leaderships: tuple[Span, ...]
    """First and last acknowledged write of each; `what` is host/timeline."""
    whole: Window
    close: Window
    """Around the gap and the changes of leader."""
    changes: tuple[Change, ...] = field(default_factory=tuple)


def course_of(
    writers: Mapping[str, Sequence[Ack]],
    verdict: Verdict,
    *,
    fault_ns: int,
    end_ns: int,
    undone_ns: int | None,
    records: Sequence[Mapping[str, Any]] = (),
) -> Course:
    """The course of the drill on which `verdict` was given. `writers`: name -> its rows; `routed` is the application's.

    `records`: of each change of leader, in the order of their terms.
    """
    everything = [ack for acks in writers.values() for ack in acks]
    leaderships = leaderships_of(everything)
    changes = tuple(Change(record, _zero_s(record, leaderships, fault_ns)) for record in records)
    gap_begin_ns, gap_end_ns = longest_gap(writers["routed"], fault_ns, end_ns)
    gap = Span(_seconds(gap_begin_ns, fault_ns), _seconds(gap_end_ns, fault_ns))
    end_s = _seconds(end_ns, fault_ns)
    first_ns = min((ack.acknowledged_ns for ack in everything), default=fault_ns)
    close = _close_up(gap, changes)
    return Course(
        end_s=end_s,
        undone_s=None if undone_ns is None else _seconds(undone_ns, fault_ns),
        gap=gap,
        two_primaries=_two_primaries(verdict, leaderships, fault_ns),
        leaderships=tuple(
            Span(_seconds(each.first_certain_ns, fault_ns), _seconds(_last_ns(each), fault_ns), each.title)
            for each in leaderships
        ),
        whole=_window(writers, fault_ns, (min(_seconds(first_ns, fault_ns), 0.0), max(end_s, 0.001)), WHOLE_BINS),
        close=_window(writers, fault_ns, close, CLOSE_BINS),
        changes=changes,
    )


def stages_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stages of a record that have a name."""
    stages = record.get("stages")
    found = stages if isinstance(stages, list | tuple) else []
    return [stage for stage in found if isinstance(stage, Mapping) and isinstance(stage.get("name"), str)]


def edges_of(stage: Mapping[str, Any]) -> tuple[float, float] | None:
    """Begin and end of a stage in seconds from its record's zero; None: nobody measured it."""
    start, end = stage.get("start_s"), stage.get("end_s")
    if not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    return (start, end) if math.isfinite(start) and math.isfinite(end) else None


def _zero_s(record: Mapping[str, Any], leaderships: Sequence[Leadership], fault_ns: int) -> float | None:
    writable = next((edges_of(stage) for stage in stages_of(record) if stage["name"] == "writable"), None)
    led = (record.get("leader"), record.get("timeline"))
    first = next((each.first_certain_ns for each in leaderships if (each.host, each.timeline) == led), None)
    return None if writable is None or first is None else _seconds(first, fault_ns) - writable[1]


def _two_primaries(verdict: Verdict, leaderships: Sequence[Leadership], fault_ns: int) -> tuple[Span, ...]:
    begins = {each.title: _seconds(each.first_certain_ns, fault_ns) for each in leaderships}
    return tuple(
        Span(begins[pair.newer], begins[pair.newer] + pair.seconds, f"{pair.older} and {pair.newer}")
        for pair in verdict.two_primaries
        if pair.newer in begins
    )


def _close_up(gap: Span, changes: Sequence[Change]) -> tuple[float, float]:
    """From where to where to look closely."""
    edges = [gap.begin_s, gap.end_s]
    for change in changes:
        known = [edge for stage in stages_of(change.record) for edge in edges_of(stage) or ()]
        edges += [] if change.zero_s is None else [change.zero_s + edge for edge in known]
    begin_s, end_s = min(edges), max(edges)
    padding_s = max(_PADDING * (end_s - begin_s), (_SHORTEST_CLOSE_UP_S - (end_s - begin_s)) / 2)
    return begin_s - padding_s, end_s + padding_s


def _window(writers: Mapping[str, Sequence[Ack]], zero_ns: int, edges_s: tuple[float, float], bins: int) -> Window:
    begin_s, end_s = edges_s
    bin_s = (end_s - begin_s) / bins
    counts: dict[tuple[str, str], list[int]] = {}
    for writer, acks in writers.items():
        for ack in acks:
            position = int((_seconds(ack.acknowledged_ns, zero_ns) - begin_s) / bin_s // 1)
            if 0 <= position < bins:
                counts.setdefault((writer, ack.host), [0] * bins)[position] += 1
    rows = tuple(Row(writer, host, tuple(counted)) for (writer, host), counted in counts.items())
    return Window(begin_s, bin_s, bins, rows)


def _last_ns(leadership: Leadership) -> int:
    return max(row.acknowledged_ns for row in leadership.rows)


def _seconds(instant_ns: int, zero_ns: int) -> float:
    return (instant_ns - zero_ns) / 1e9
