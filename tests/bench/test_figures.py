"""Medians, spreads, and what counts as better."""

from __future__ import annotations

import pytest

from hamgr.bench.figures import GAP, LOST, Spread, ratio, rest_figures, seconds, spread_of
from tests.bench.runs import failure, run

AGENT = "agent-killed"


def test_a_spread_is_median_least_and_most() -> None:
    assert spread_of([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0, 3)
    assert spread_of([]) is None


def test_a_failed_run_counts_for_no_figure() -> None:
    runs = [run("hamgr-ttl5", AGENT, gap_s=1.0), failure("hamgr-ttl5", AGENT, "died", 2)]
    assert GAP.spread(runs) == Spread(1.0, 1.0, 1.0, 1)


def test_lost_rows_of_all_writers_count() -> None:
    assert LOST.spread([run("hamgr-ttl5", AGENT, lost=3, lost_pinned=4)]) == Spread(7.0, 7.0, 7.0, 1)


def test_a_difference_below_the_clients_interval_is_none() -> None:
    reference = Spread(0.020, 0.010, 0.030, 5)
    assert not GAP.is_better(Spread(0.016, 0.016, 0.016, 5), reference)
    assert GAP.is_better(Spread(0.014, 0.014, 0.014, 5), reference)


def test_of_rates_more_is_better() -> None:
    rate = rest_figures("pool10-idle0")[0]
    slow, fast = Spread(1000.0, 1000.0, 1000.0, 1), Spread(2000.0, 2000.0, 2000.0, 1)
    assert rate.is_better(fast, slow)
    assert not rate.is_better(slow, fast)


def test_latencies_that_nobody_could_measure_are_no_figure() -> None:
    p99 = next(figure for figure in rest_figures("pool10-idle200") if figure.name == "p99, ms")
    assert p99.spread([run("patroni-default", "rest", **{"pool10-idle200": {"requests_per_s": 0.0}})]) is None


def test_nothing_has_a_ratio_to_zero() -> None:
    some, none = Spread(3.0, 3.0, 3.0, 1), Spread(0.0, 0.0, 0.0, 1)
    assert ratio(some, none) == "—"
    assert ratio(some, Spread(0.5, 0.5, 0.5, 1)) == "6.00×"


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.0184, "18 ms"), (1.394, "1.39 s"), (40.72, "40.7 s")])
def test_durations_are_shown_as_people_read_them(value: float, text: str) -> None:
    assert seconds(value) == text
