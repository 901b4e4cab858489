"""Medians, spreads and comparisons. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hamgr.bench.results import Run


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over several runs."""

    middle: float
    low: float
    high: float
    runs: int

    def overlaps(self, other: Spread) -> bool:
        """Whether a run of the one may be worse than one of the other and another better."""
        return self.low <= other.high and other.low <= self.high


def spread_of(values: Sequence[float]) -> Spread | None:
    """None where nothing was measured."""
    return Spread(median(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that is measured of each run.

    `least`: a smaller difference is none. `more_is_better`: for rates.
    """

    name: str
    read: Callable[[Mapping[str, Any]], float | None]
    show: Callable[[float], str]
    least: float = 0.0
    more_is_better: bool = False

    def spread(self, runs: Sequence[Run]) -> Spread | None:
        """Over the runs that came to a result."""
        values = [self.read(run.result) for run in runs if run.result is not None]
        return spread_of([value for value in values if value is not None])

    def is_better(self, one: Spread, other: Spread) -> bool:
        """Whether `one` has the better median, by more than the least difference."""
        ahead = one.middle - other.middle if self.more_is_better else other.middle - one.middle
        return ahead > self.least


def seconds(value: float) -> str:
    """A duration as people read it."""
    if value == 0:
        return "0"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def count(value: float) -> str:
    """A number of things; a median of them may be a half."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def plain(value: float) -> str:
    """A figure with about three digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio(one: Spread, reference: Spread) -> str:
    """How many times the reference's median; a dash where that is zero."""
    return "—" if reference.middle == 0 else f"{plain(one.middle / reference.middle)}×"


def _field(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    def read(result: Mapping[str, Any]) -> float | None:
        value = result.get(name)
        return None if value is None else float(value)

    return read


_CLIENT_INTERVAL_S = 0.005
"""The client writes every 4 ms."""

GAP = Figure("write gap", _field("gap_s"), seconds, least=_CLIENT_INTERVAL_S)
TWO_PRIMARIES = Figure("two primaries", _field("two_primaries_s"), seconds)
LOST = Figure("acknowledged writes lost", lambda result: float(result["lost"] + result["lost_pinned"]), count)
CHANGES = Figure("leader changes", _field("leader_changes"), count)
SETTLED = Figure("all back in place", _field("settled_s"), seconds, least=0.5)

FAULT_FIGURES = (GAP, TWO_PRIMARIES, LOST)
"""What one manager may be better in than another."""

IDLE_FIGURES = (
    Figure("memory (RSS), MiB", _field("manager_rss_mib"), plain, least=0.5),
    Figure("memory (PSS), MiB", _field("manager_pss_mib"), plain, least=0.5),
    Figure("processes", _field("manager_processes"), plain),
    Figure("CPU of the manager, % of a core", _field("manager_cpu_percent"), plain, least=0.02),
    Figure("CPU of PostgreSQL, % of a core", _field("server_cpu_percent"), plain, least=0.02),
    Figure("CPU of etcd or the monitor, % of a core", _field("authority_cpu_percent"), plain, least=0.02),
    Figure("etcd: writing transactions per second", _field("revisions_per_s"), plain, least=0.005),
    Figure("etcd: entries of its log per second", _field("proposals_per_s"), plain, least=0.005),
    Figure("monitor: WAL, bytes per second", _field("monitor_wal_bytes_per_s"), plain, least=1.0),
    Figure("primary: WAL, bytes per second", _field("wal_bytes_per_s"), plain, least=1.0),
)


def rest_figures(load: str) -> tuple[Figure, ...]:
    """Of one load of the REST server."""

    def of(name: str) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda result: _field(name)(result[load])

    return (
        Figure("requests per second", of("requests_per_s"), plain, more_is_better=True),
        Figure("p50, ms", of("p50_ms"), plain),
        Figure("p99, ms", of("p99_ms"), plain),
        Figure("without an answer in 2 s", of("failed"), count),
    )
