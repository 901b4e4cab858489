"""Which faults a forecast simulates: each cause on leader and replicas, durations in layers so that tails are seen."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hamgr.sim.forecast.causes import Cause, rates
from hamgr.sim.forecast.environment import Environment
from hamgr.sim.forecast.spread import Spread

LADDER_S = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0, 27.0, 36.0, 48.0, 64.0)
"""Durations between which a layer lies: where leases end, and so where it is decided what comes of a fault. Each layer
is simulated as often as any other, and weighs as much as the share of durations that it holds.
"""
STRIKES_PER_WORLD = 6
LEADER_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault to come. `share`: which of the durations; `per_year`: how many a year this one stands for."""

    cause: str
    on_leader: bool
    share: float
    lasts_s: float
    per_year: float


@dataclass(frozen=True, slots=True)
class WorldPlan:
    """What strikes one simulated cluster, one after the other. `number` is its seed."""

    number: int
    strikes: tuple[Strike, ...]


def plan_worlds(environment: Environment, runs: int, *, only_by_lease: bool = False) -> tuple[WorldPlan, ...]:
    """About so many faults, in worlds. The same environment and number give the same plan."""
    chosen = [each for each in rates(environment) if each[0].by_lease or not only_by_lease]
    strikes = [
        strike
        for cause, per_year, lasts in chosen
        for strike in _strikes(cause, per_year, lasts, environment.members, max(2, runs // len(chosen)))
    ]
    random.Random("worlds").shuffle(strikes)
    return tuple(
        WorldPlan(number, tuple(strikes[at : at + STRIKES_PER_WORLD]))
        for number, at in enumerate(range(0, len(strikes), STRIKES_PER_WORLD))
    )


def _strikes(cause: Cause, per_year: float, lasts: Spread, members: int, runs: int) -> Iterator[Strike]:
    """Most on the leader, where most happens; the rest on replicas, of which there are more."""
    dice = random.Random(cause.key)
    on_leader = runs if not cause.of_member else max(1, int(runs * LEADER_SHARE))
    layers = _layers(lasts)
    for is_leader, count, often in ((True, on_leader, 1), (False, runs - on_leader, members - 1)):
        for share, weight in _shares(dice, layers, count):
            yield Strike(cause.key, is_leader, share, lasts.at(share), per_year * often * weight)


def _layers(lasts: Spread) -> tuple[float, ...]:
    """The shares of durations at which a layer ends and another begins, from 0 to 1."""
    inner = (1.0 - lasts.share_above(rung_s) for rung_s in LADDER_S)
    return (0.0, *sorted({share for share in inner if 0.0 < share < 1.0}), 1.0)


def _shares(dice: random.Random, layers: Sequence[float], count: int) -> Iterator[tuple[float, float]]:
    """So many shares, spread evenly over the layers, each with its weight; weights add up to 1."""
    used = min(len(layers) - 1, count)
    # With fewer draws than layers neighbours are taken together.
    edges = [layers[number * (len(layers) - 1) // used] for number in range(used + 1)] if used else []
    for number, (low, high) in enumerate(pairwise(edges)):
        draws = count // used + (1 if number < count % used else 0)
        for _ in range(draws):
            yield dice.uniform(low, high), (high - low) / draws
