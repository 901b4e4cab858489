"""What is compared: each manager with its own defaults and with tight timings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamgr.bench.managers.auto_failover import MONITOR_HOST, AutoFailover, Timings
from hamgr.bench.managers.etcd import ETCD_HOSTS
from hamgr.bench.managers.hamgr import Hamgr
from hamgr.bench.managers.manager import Ground, Manager
from hamgr.bench.managers.patroni import Patroni

HAMGR, PATRONI, AUTO_FAILOVER = "hamgr", "patroni", "pg_auto_failover"
PRODUCTS = (HAMGR, PATRONI, AUTO_FAILOVER)

_PATRONI_DEFAULT = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}
_PATRONI_TIGHTEST = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
"""Lower values are refused (patroni/config.py) or adjusted: loop_wait + 2 * retry_timeout must not exceed ttl."""

_AUTO_FAILOVER_TIGHT = Timings(
    monitor={
        "health_check_period": 500,
        "health_check_timeout": 500,
        "health_check_retry_delay": 200,
        "health_check_max_retries": 1,
        "node_considered_unhealthy_timeout": 2000,
        "primary_demote_timeout": 1000,
    },
    node={"network_partition_timeout": 2},
    server={"wal_retrieve_retry_interval": "200ms"},
)
"""It accepts 1 ms for each. These keep its own order: a primary that is cut off stops itself before another leads."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One manager with one set of timings.

    `period_s`: the longest pause between two looks of what decides. A fault strikes at a random instant of it.
    """

    name: str
    product: str
    title: str
    period_s: float
    dynamic: Mapping[str, Any] | None = None
    """hamgr, Patroni: keys of bootstrap.dcs."""
    timings: Timings | None = None
    """pg_auto_failover's."""

    @property
    def authority_hosts(self) -> tuple[str, ...]:
        return (MONITOR_HOST,) if self.product == AUTO_FAILOVER else ETCD_HOSTS

    def manager(self, ground: Ground, patroni: Path) -> Manager:
        """Built and not started. `patroni`: that program. Raises DrillError where the product is not installed."""
        if self.product == AUTO_FAILOVER:
            assert self.timings is not None
            return AutoFailover(ground, self.timings)
        dynamic = self.dynamic or {}
        return Hamgr(ground, dynamic) if self.product == HAMGR else Patroni(ground, dynamic, patroni)


def _patroni(name: str, title: str, timings: Mapping[str, int], failsafe: bool) -> Variant:
    settings = {**timings, **({"failsafe_mode": True} if failsafe else {})}
    words = f"Patroni, {title}{', failsafe_mode' if failsafe else ''}"
    return Variant(name, PATRONI, words, float(timings["loop_wait"]), dynamic=settings)


VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("hamgr-ttl5", HAMGR, "hamgr, ttl 5 (default)", 1.0, dynamic={}),
        Variant("hamgr-ttl2", HAMGR, "hamgr, ttl 2", 1.0, dynamic={"ttl": 2}),
        _patroni("patroni-default", "defaults (30/10/10)", _PATRONI_DEFAULT, False),
        _patroni("patroni-default-failsafe", "defaults (30/10/10)", _PATRONI_DEFAULT, True),
        _patroni("patroni-tight", "tightest (20/1/3)", _PATRONI_TIGHTEST, False),
        _patroni("patroni-tight-failsafe", "tightest (20/1/3)", _PATRONI_TIGHTEST, True),
        Variant(
            "pg_auto_failover-default", AUTO_FAILOVER, "pg_auto_failover, defaults", 5.0, timings=Timings({}, {}, {})
        ),
        Variant("pg_auto_failover-tight", AUTO_FAILOVER, "pg_auto_failover, tight", 1.0, timings=_AUTO_FAILOVER_TIGHT),
    )
}
"""By name, in the order of the tables. The first is what the others are compared with."""
