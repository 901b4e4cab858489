"""How often a lease would be lost for nothing: from stalls that were seen for a while to the rate of long ones.

A needless failover happens where nothing is broken and yet no renewal is confirmed in time: etcd, the network or this
host stood still for longer than the lease leaves room for. Such stalls are rare, so their rate is extrapolated from the
shorter ones: excesses over a high threshold follow a generalised Pareto distribution (Pickands 1975), fitted by
probability-weighted moments (Hosking and Wallis 1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hamgr.core.policy import KILL_BUDGET_S, STOP_BEFORE_KILL_S, margin_of, renew_interval_of

YEAR_S = 365.25 * 86_400
FEWEST_EXCESSES = 30
"""With fewer a fit says nothing."""
SHARE_OF_TAIL = 0.1
"""The longest tenth of all stalls is the tail, as far as it is not more than `MOST_EXCESSES`."""
MOST_EXCESSES = 500
SHORTEST_TTL_S = 2
LONGEST_TTL_S = 300


class TooFewStalls(ValueError):
    """Not enough was seen to say anything; the text says how much there was."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Of the stalls longer than `threshold_s`, how many a second, and how their lengths go on (`scale_s`, `shape`)."""

    threshold_s: float
    rate_hz: float
    scale_s: float
    shape: float
    """0: falls off exponentially; the larger, the heavier. At the pessimistic end of what was seen."""
    longest_s: float
    excesses: int

    def per_year(self, longer_than_s: float) -> float:
        """How many stalls a year are expected to be longer than that; below the threshold, as many as reach it."""
        beyond_s = longer_than_s - self.threshold_s
        if beyond_s <= 0:
            return self.rate_hz * YEAR_S
        if self.shape < 1e-9:
            return self.rate_hz * YEAR_S * math.exp(-beyond_s / self.scale_s)
        return self.rate_hz * YEAR_S * float((1 + self.shape * beyond_s / self.scale_s) ** (-1 / self.shape))


def tail_of(stalls_s: Sequence[float], span_s: float) -> Tail:
    """The tail of the stalls of `span_s` seconds. Raises TooFewStalls."""
    ordered = sorted(stalls_s)
    count = min(int(len(ordered) * SHARE_OF_TAIL), MOST_EXCESSES)
    if count < FEWEST_EXCESSES or span_s <= 0:
        needed = math.ceil(FEWEST_EXCESSES / SHARE_OF_TAIL)
        raise TooFewStalls(f"{len(ordered)} measurements say nothing of rare stalls: at least {needed} are needed")
    threshold_s = ordered[-count - 1]
    excesses = [max(each - threshold_s, 1e-9) for each in ordered[-count:]]
    scale_s, shape = _fitted(excesses)
    return Tail(threshold_s, count / span_s, scale_s, shape, ordered[-1], count)


def _fitted(excesses: Sequence[float]) -> tuple[float, float]:
    """Scale and shape of ascending excesses; the shape one standard error towards the heavier, never below 0."""
    count = len(excesses)
    mean = sum(excesses) / count
    weighted = sum(each * (1 - (rank - 0.35) / count) for rank, each in enumerate(excesses, start=1)) / count
    spread = mean - 2 * weighted
    shape = 2 - mean / spread if spread > 0 else 0.95
    shape = min(max(shape, 0.0), 0.95)
    pessimistic = min(shape + (1 + shape) / math.sqrt(count), 0.95)
    # The mean is what was seen: a heavier tail has the smaller scale.
    return mean * (1 - pessimistic), pessimistic


def room_s(ttl_s: float, loop_wait_s: float) -> float:
    """The longest stall that a lease of that ttl outlives: it may begin just when the next renewal is due."""
    until_stop_s = ttl_s - margin_of(ttl_s) - KILL_BUDGET_S - STOP_BEFORE_KILL_S
    return until_stop_s - renew_interval_of(ttl_s, loop_wait_s)


def needless_per_year(tail: Tail, ttl_s: float, loop_wait_s: float) -> float:
    """Needless failovers a year of one cluster. The peers, who would often help out, are not counted on."""
    return tail.per_year(room_s(ttl_s, loop_wait_s))


def shortest_ttl_s(tail: Tail, wanted_per_year: float, loop_wait_s: float) -> int | None:
    """The shortest ttl, in whole seconds, with no more needless failovers than that and with room for the longest stall
    that was seen; None: not even the longest ttl is enough.
    """
    for ttl_s in range(SHORTEST_TTL_S, LONGEST_TTL_S + 1):
        room = room_s(ttl_s, loop_wait_s)
        if room > tail.longest_s and needless_per_year(tail, ttl_s, loop_wait_s) <= wanted_per_year:
            return ttl_s
    return None


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed. `values` is not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
