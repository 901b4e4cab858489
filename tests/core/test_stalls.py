"""The rate of long stalls, from short ones: against distributions whose tail is known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamgr.core.stalls import (
    YEAR_S,
    TooFewStalls,
    needless_per_year,
    quantile,
    room_s,
    shortest_ttl_s,
    tail_of,
)

LOOP_WAIT_S = 1.0
SPAN_S = 60.0


def exponential(mean_s: float, count: int = 3000, seed: int = 1) -> list[float]:
    dice = random.Random(seed)
    return [dice.expovariate(1 / mean_s) for _ in range(count)]


def pareto(scale_s: float, shape: float, count: int = 3000, seed: int = 1) -> list[float]:
    dice = random.Random(seed)
    return [scale_s / shape * ((1 - dice.random()) ** -shape - 1) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_rate_of_rare_stalls_is_on_the_safe_side_of_the_true_one(seed):
    """Ten times beyond what could be seen, for a tail that is known."""
    for stalls, survival in (
        (exponential(0.01, seed=seed), lambda s: math.exp(-s / 0.01)),
        (pareto(0.002, 0.3, seed=seed), lambda s: (1 + 0.3 * s / 0.002) ** (-1 / 0.3)),
    ):
        beyond_s = 3 * max(stalls)
        true_per_year = len(stalls) / SPAN_S * survival(beyond_s) * YEAR_S
        assert tail_of(stalls, SPAN_S).per_year(beyond_s) >= 0.3 * true_per_year


def test_heavier_tail_asks_for_a_longer_ttl():
    found = [
        shortest_ttl_s(tail_of(stalls, SPAN_S), 1.0, LOOP_WAIT_S)
        for stalls in (exponential(0.002), pareto(0.002, 0.3), pareto(0.002, 0.6))
    ]
    assert None not in found[:2]
    assert found[0] < found[1]
    assert found[2] is None or found[2] > found[1]


def test_calm_environment_gets_the_shortest_ttl_that_etcd_grants():
    assert shortest_ttl_s(tail_of(exponential(0.0005), SPAN_S), 1.0, LOOP_WAIT_S) == 2


def test_a_stall_that_was_seen_has_room_in_what_is_proposed():
    stalls = [*exponential(0.001), 4.0]
    ttl_s = shortest_ttl_s(tail_of(stalls, SPAN_S), 1e9, LOOP_WAIT_S)
    assert room_s(ttl_s, LOOP_WAIT_S) > 4.0
    assert room_s(ttl_s - 1, LOOP_WAIT_S) <= 4.0


def test_where_no_ttl_is_long_enough_none_is_proposed():
    assert shortest_ttl_s(tail_of([*exponential(0.001), 400.0], SPAN_S), 1.0, LOOP_WAIT_S) is None


@pytest.mark.parametrize("count", [0, 1, 299])
def test_too_few_stalls_are_no_ground_for_a_proposal(count):
    with pytest.raises(TooFewStalls, match="at least 300"):
        tail_of([0.001] * count, SPAN_S)


def test_stalls_that_are_all_alike_have_a_tail_too():
    assert tail_of([0.001] * 1000, SPAN_S).per_year(1.0) < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(1e-5, 1.0), min_size=300, max_size=600),
    st.floats(0.01, 1000.0),
    st.floats(1.0, 100.0),
)
def test_more_room_or_more_patience_never_asks_for_more(stalls, wanted, factor):
    tail = tail_of(stalls, SPAN_S)
    rates = [needless_per_year(tail, float(ttl_s), LOOP_WAIT_S) for ttl_s in range(2, 60)]
    assert rates == sorted(rates, reverse=True)
    strict, lax = (shortest_ttl_s(tail, rate, LOOP_WAIT_S) for rate in (wanted, wanted * factor))
    assert strict is None or (lax is not None and lax <= strict)


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=50), st.floats(0.0, 1.0))
def test_quantile_is_a_value_that_so_many_do_not_exceed(values, share):
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
