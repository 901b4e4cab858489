"""GET /metrics: Patroni's names, so that its dashboards and alerts keep working, and what it lacks as hamgr_*.

Where a value is not known a sample is missing, except where Patroni's own convention is another. Every name stands in
`metric_table`.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from hamgr.api.metric_table import LABELS, METRICS, Described
from hamgr.api.port import AgentPort
from hamgr.api.samples import Sample, histograms, samples
from hamgr.core.tally import BOUNDS_S, Histogram
from hamgr.core.units import WallTime


def exposition(port: AgentPort, wall: WallTime) -> bytes:
    """All metrics of this member now, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(port, wall))
    return generate_latest(registry)


class SnapshotCollector(Collector):
    """Metrics of one snapshot; nothing is counted in between."""

    def __init__(self, port: AgentPort, wall: WallTime) -> None:
        self._port = port
        self._wall = wall

    def collect(self) -> Iterator[Metric]:
        """Every family of which there is a sample, once, in the table's order."""
        port, snapshot = self._port, self._port.snapshot()
        given: dict[str, list[Sample]] = {}
        for sample in samples(snapshot, port.now(), self._wall):
            given.setdefault(sample.name, []).append(sample)
        observed: dict[str, list[tuple[tuple[str, ...], Histogram]]] = {}
        for name, labels, histogram in histograms(snapshot.tally):
            observed.setdefault(name, []).append((labels, histogram))
        common = (port.scope, snapshot.state.me.name)
        for name, described in METRICS.items():
            if described.kind == "histogram":
                yield _histograms(described, common, observed.get(name, []))
            elif name in given:
                yield _values(described, common, given[name])


def _values(described: Described, common: tuple[str, ...], given: list[Sample]) -> Metric:
    kind = CounterMetricFamily if described.kind == "counter" else GaugeMetricFamily
    family = kind(described.name, described.text, labels=(*LABELS, *described.labels))
    for sample in given:
        family.add_metric((*common, *sample.labels), sample.value)
    return family


def _histograms(
    described: Described, common: tuple[str, ...], observed: list[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(described.name, described.text, labels=(*LABELS, *described.labels))
    for labels, histogram in observed:
        family.add_metric((*common, *labels), _cumulated(histogram), histogram.sum_s)
    return family


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket what is in the smaller ones too."""
    buckets, total = [], 0
    for bound, count in zip((*BOUNDS_S, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append((f"{bound:g}" if bound < float("inf") else "+Inf", float(total)))
    return buckets
