"""Order statistics: always a value that was seen, never one between two, so that they are the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence


def at_share(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of them do not exceed. `values` in order, not empty."""
    reached = next((rank for rank in range(1, len(values) + 1) if rank >= share * len(values) - 1e-9), len(values))
    return values[reached - 1]


def at_weighted_share(values: Sequence[tuple[float, float]], share: float) -> float:
    """As `at_share`, of (value, weight) in order of values."""
    wanted, reached = share * sum(weight for _, weight in values) * (1.0 - 1e-12), 0.0
    for value, weight in values:
        reached += weight
        if reached >= wanted:
            return value
    return values[-1][0]
