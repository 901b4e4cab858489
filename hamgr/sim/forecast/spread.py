"""Durations that are given by a few of their quantiles, so that a tail is part of them."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import PlainValidator

from hamgr.settings import parse_seconds
from hamgr.sim.pace import Pace, Range

Points = tuple[tuple[float, float], ...]

_QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,6})?)")
LONGEST_S = 366 * 86400.0
HOW = "write a time, for example 2ms, or quantiles: {p50: 0.5ms, p99: 3ms, max: 200ms}"


class Spread(tuple[float, float]):
    """A range of seconds, as the simulator's, in which the shares of what lies where are known. Between two points
    values lie evenly.
    """

    points: Points

    def __new__(cls, points: Points) -> Spread:
        self = super().__new__(cls, (points[0][1], points[-1][1]))
        self.points = points
        return self

    def __getnewargs__(self) -> tuple[Points]:
        return (self.points,)

    def at(self, share: float) -> float:
        """The value that this share of values does not exceed. Seconds."""
        before = self.points[0]
        for point in self.points[1:]:
            if share <= point[0]:
                part = (share - before[0]) / (point[0] - before[0])
                return before[1] + part * (point[1] - before[1])
            before = point
        return before[1]

    def draw(self, dice: random.Random) -> float:
        """One duration."""
        return self.at(dice.random())

    def share_above(self, seconds: float) -> float:
        """Which share of values is greater."""
        before = self.points[0]
        if seconds < before[1]:
            return 1.0
        for point in self.points[1:]:
            if seconds < point[1]:
                part = (seconds - before[1]) / (point[1] - before[1])
                return 1.0 - (before[0] + part * (point[0] - before[0]))
            before = point
        return 0.0

    @property
    def one_way(self) -> Spread:
        """Of round trips: a way such that two of them together have their mean, and their tail.

        What makes a round trip slow is on one of its ways: half of all ways take half of the shortest round trip, the
        others all the rest.
        """
        quickest_s = self.points[0][1] / 2
        slow = tuple((0.5 + share / 2, value - quickest_s) for share, value in self.points)
        return Spread(((0.0, quickest_s), *slow))

    @property
    def mean(self) -> float:
        """Seconds."""
        return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(self.points))

    @property
    def is_fixed(self) -> bool:
        """It is always the same."""
        return self[0] == self[1]


class Both(tuple[float, float]):
    """One after the other: a draw of each, added up."""

    parts: tuple[Spread, Spread]

    def __new__(cls, one: Spread, other: Spread) -> Both:
        self = super().__new__(cls, (one[0] + other[0], one[1] + other[1]))
        self.parts = (one, other)
        return self

    def __getnewargs__(self) -> tuple[Spread, Spread]:
        return self.parts

    def draw(self, dice: random.Random) -> float:
        return self.parts[0].draw(dice) + self.parts[1].draw(dice)


class SpreadPace(Pace):
    """A pace some of whose ranges are spreads."""

    __slots__ = ()

    def draw(self, dice: random.Random, span: Range) -> float:
        return span.draw(dice) if isinstance(span, Spread | Both) else Pace.draw(self, dice, span)


def parse_spread(value: object) -> Spread:
    """From a time, or from a mapping of quantiles that ends with max. Raises ValueError."""
    if isinstance(value, Spread):
        return value
    if not isinstance(value, Mapping):
        seconds = _time(value)
        return Spread(((0.0, seconds), (1.0, seconds)))
    points = sorted((_share(name), _time(each)) for name, each in value.items())
    if not points or points[-1][0] != 1.0:
        raise ValueError(f"does not say the longest (max): {HOW}")
    if points[0][0] > 0.0:
        # Whoever knows the median only: nothing is known of what is shorter, and little depends on it.
        points.insert(0, (0.0, points[0][1] / 2))
    if any(right[1] < left[1] for left, right in pairwise(points)):
        raise ValueError("the value of a higher quantile is smaller than that of a lower one")
    return Spread(tuple(points))


def _share(name: object) -> float:
    if name in ("min", "max"):
        return 0.0 if name == "min" else 1.0
    found = _QUANTILE.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"knows min, max and quantiles such as p50, p99, p99.9: {HOW}")
    return float(found[1]) / 100


def _time(value: object) -> float:
    if value is None:
        raise ValueError(f"is missing: {HOW}")
    seconds = parse_seconds(value)
    if seconds < 0.0:
        raise ValueError("a time is not negative")
    if seconds > LONGEST_S:
        raise ValueError("a time is a year at most")
    return seconds


SpreadOf = Annotated[Spread, PlainValidator(parse_spread)]
