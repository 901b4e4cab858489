"""What a survey found, as plain values; and what samples come to. Pure."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hamgr.fleet.gauges import Load
from hamgr.fleet.samples import Seen, Sent

FORMAT = "hamgr-fleet/1"


@dataclass(frozen=True, slots=True)
class Spread:
    """Durations in seconds, of `count` things."""

    count: int
    median_s: float
    p99_s: float
    worst_s: float


def spread_of(durations_s: Sequence[float]) -> Spread | None:
    """None: there is nothing to say."""
    if not durations_s:
        return None
    ordered = sorted(durations_s)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Spread(len(ordered), statistics.median(ordered), p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class Delays:
    """From sending a change until each of its cluster's watches had yielded it, the sender's own included."""

    spread: Spread | None
    unseen: int
    """Watches that a change had not reached when it was last looked."""


def delays_of(sent: Sequence[Sent], seen: Sequence[Seen], members: int) -> Delays:
    """A change was seen when a watch yielded a view of its revision or a later one: several may come as one."""
    by_watch: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for cluster, member, revision, at_ns in seen:
        by_watch.setdefault((cluster, member), []).append((revision, at_ns))
    watches: dict[str, list[list[tuple[int, int]]]] = {}
    for (cluster, _), views in by_watch.items():
        watches.setdefault(cluster, []).append(sorted(views))
    found: list[float] = []
    for cluster, revision, sent_ns in sent:
        for views in watches.get(cluster, []):
            at = bisect_left(views, (revision, 0))
            if at < len(views):
                found.append((views[at][1] - sent_ns) / 1e9)
    return Delays(spread_of(found), len(sent) * members - len(found))


@dataclass(frozen=True, slots=True)
class Calm:
    """A stretch of time without failures. `renewals`: each with the read that confirms it."""

    load: Load
    renewals: Spread | None
    failed_renewals: int
    status_writes_per_s: float
    delays: Delays | None
    """None: too little was written to say."""


@dataclass(frozen=True, slots=True)
class Elections:
    """Leaders were lost. `vacancy`: from the leader key's end until the next one took it, seen from outside."""

    lost: int
    at_once: bool
    """All together, by leases that ran out; else one after the other, by leases that were revoked."""
    vacancy: Spread | None
    not_taken: int
    lateness: Spread | None
    """How long after its ttl a lease was gone; None where they were revoked."""
    proposals_each: float | None
    """What one change of leader costs etcd, with all that is written after it, and the return of the lost member."""


@dataclass(frozen=True, slots=True)
class Step:
    """Everything that was measured with so many agents."""

    clusters: int
    agents: int
    settled_s: float
    """Until the agents that came last were settled."""
    idle: Calm
    busy: Calm
    """Every primary is written to: each leader tells its position once per loop_wait."""
    single: Elections
    storm: Elections
    lost_leases: int
    """Of living agents. Must be 0."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """A whole survey, and under which conditions it was made."""

    hamgr: str
    etcd: str
    machine: str
    place: str
    began_at: str
    command: str
    seconds: float
    members: int
    ttl_s: float
    loop_wait_s: float
    spread: bool
    """Whether agents begin with different etcd members; else all with the first of the same list."""
    steps: tuple[Step, ...]
    ended_by: str = ""
    """Why the step after the last one could not be carried out; empty: all were."""

    @property
    def is_good(self) -> bool:
        """No lease of a living agent was lost, every lead was taken, nothing happened that must not."""
        return not self.ended_by and all(
            not step.lost_leases and not step.problems and not step.single.not_taken and not step.storm.not_taken
            for step in self.steps
        )

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "is_good": self.is_good, **asdict(self)}
