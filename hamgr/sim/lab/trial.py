"""One protocol, one fault, one seed: a cluster forms, the fault strikes, lasts and ends; what was seen is added up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from hamgr.sim.ground import Violation
from hamgr.sim.lab.cluster import Cluster
from hamgr.sim.lab.faults import LabFault
from hamgr.sim.lab.field import Setting
from hamgr.sim.lab.observer import Observer, Span, gaps_of

WARM_UP_S = 300.0
SETTLE_S = (2.0, 14.0)
HOLD_S = 45.0
AFTER_S = 30.0
LAG_S = (0.5, 2.0)
"""One replica, by chance, has WAL so late."""

Build = Callable[[random.Random, Setting], Cluster]


class NeverReady(Exception):
    """The cluster did not form."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one trial. Seconds.

    `gap_s`: the longest time without a leader that clients of the majority reach, `down_s`: all of it. `two_s`: with
    two that accept writes, `two_times`: how often that began. `needless`: changes of leader, but for one where the
    fault took the leader from its clients. `lost`: acknowledged writes. `stale_by`, `messages`: see Observer.
    """

    gap_s: float
    down_s: float
    two_s: float
    two_times: int
    changes: int
    needless: int
    lost: int
    stale_by: int
    messages: int | None
    violation: str = ""


def run_trial(build: Build, fault: LabFault, members: int, seed: int) -> Seen:
    """Raises NeverReady where no leader came about before the fault."""
    dice = random.Random(f"{fault.key}/{members}/{seed}")
    cluster = build(dice, Setting(members, fault.drift))
    observer = Observer(cluster)
    began_at, violation, caused = 0.0, "", False
    try:
        leader = _warm_up(cluster, observer, dice)
        observer.strike()
        began_at = cluster.ground.now
        heal = fault.strike(cluster, dice, leader)
        caused = not observer.is_reached(leader)
        _run(cluster, observer, HOLD_S)
        heal()
        if fault.blocks_all:
            observer.count_from_here()
            began_at = cluster.ground.now
        _run(cluster, observer, AFTER_S)
    except Violation as wrong:
        violation = str(wrong)
    return _add_up(observer, began_at, int(caused), violation)


def _warm_up(cluster: Cluster, observer: Observer, dice: random.Random) -> str:
    """One leads, all others stream from it, and it has for a while; who that is."""
    cluster.begin()
    end = cluster.ground.now + WARM_UP_S
    while not cluster.is_ready():
        if cluster.ground.now >= end:
            raise NeverReady(f"no leader with all members after {WARM_UP_S:g} s: {cluster.accepting()}")
        _run(cluster, observer, 0.5)
    leader = cluster.accepting()[0]
    cluster.network.wal_later_s[dice.choice([name for name in cluster.names if name != leader])] = LAG_S
    _run(cluster, observer, dice.uniform(*SETTLE_S))
    return (cluster.accepting() or (leader,))[0]


def _run(cluster: Cluster, observer: Observer, seconds: float) -> None:
    schedule = cluster.ground.schedule
    end = schedule.now + seconds
    while schedule.next_at <= end:
        schedule.step()
        observer.look()
    schedule.now = end


def _add_up(observer: Observer, began_at: float, caused: int, violation: str) -> Seen:
    spans = list(observer.spans())
    gaps = gaps_of(spans, began_at)
    two = [span for span in spans if len(span.accepting) > 1]
    return Seen(
        gap_s=max(gaps, default=0.0),
        down_s=sum(gaps),
        two_s=sum(span.length_s for span in two),
        two_times=_runs(spans),
        changes=observer.changes,
        needless=max(0, observer.changes - caused),
        lost=observer.lost(),
        stale_by=observer.stale_by,
        messages=observer.messages,
        violation=violation,
    )


def _runs(spans: list[Span]) -> int:
    """How often a time with two leaders began."""
    is_two = [len(span.accepting) > 1 for span in spans]
    return sum(now and not before for before, now in zip([False, *is_two], is_two, strict=False))
