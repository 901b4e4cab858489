"""Every protocol under every fault, with growing numbers of members: many trials, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hamgr.sim.jobs import run_all
from hamgr.sim.lab.faults import BY_KEY as FAULTS
from hamgr.sim.lab.protocols import BY_KEY as PROTOCOLS
from hamgr.sim.lab.splitvotes import SPREADS_MS, election_s
from hamgr.sim.lab.trial import NeverReady, Seen, run_trial
from hamgr.sim.ranks import at_share

LARGE = 20
"""From so many members on, fewer seeds: each takes long, and what is asked then is how things grow."""
LARGE_SHARE = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare."""

    protocols: tuple[str, ...]
    faults: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: int

    def seeds_of(self, members: int) -> int:
        return self.seeds if members < LARGE else max(1, self.seeds // LARGE_SHARE)


@dataclass(frozen=True, slots=True)
class Task:
    """One trial."""

    protocol: str
    fault: str
    members: int
    seed: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One protocol under one fault. Seconds; `two_trials`, `stale_trials`: in how many trials there were two leaders,
    a winner that lacked data; means are over all trials, `messages` is a median, None where nobody was elected.
    """

    protocol: str
    fault: str
    members: int
    trials: int
    gap_p50_s: float
    gap_p95_s: float
    gap_worst_s: float
    down_mean_s: float
    two_trials: int
    two_mean_s: float
    two_worst_s: float
    two_times_mean: float
    changes_mean: float
    needless_mean: float
    lost_mean: float
    lost_worst: int
    stale_trials: int
    stale_worst: int
    messages: int | None
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """How long Raft elects with timeouts drawn from that range. Seconds."""

    from_ms: int
    to_ms: int
    trials: int
    p50_s: float
    p95_s: float
    worst_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it."""

    plan: Plan
    cells: tuple[Cell, ...]
    splits: tuple[Split, ...]

    def cell(self, protocol: str, fault: str, members: int) -> Cell | None:
        wanted = (protocol, fault, members)
        return next((each for each in self.cells if (each.protocol, each.fault, each.members) == wanted), None)

    @property
    def violations(self) -> Iterator[str]:
        """What must never be, with where it was seen. Only of hamgr: the others promise nothing."""
        return (
            f"{cell.protocol}, {cell.fault}, {cell.members} members: {words}"
            for cell in self.cells
            for words in cell.violations
        )

    def as_json(self) -> Mapping[str, Any]:
        return {
            "plan": asdict(self.plan),
            "protocols": [_sheet(key) for key in self.plan.protocols],
            "faults": [{"key": key, "title": FAULTS[key].title} for key in self.plan.faults],
            "cells": [asdict(cell) for cell in self.cells],
            "raft_timeouts": [asdict(split) for split in self.splits],
        }


def compare(plan: Plan, jobs: int) -> Comparison:
    """Run all of it. Raises NeverReady where a cluster does not form."""
    tasks = [
        Task(protocol, fault, members, seed)
        for members in plan.sizes
        for fault in plan.faults
        for protocol in plan.protocols
        for seed in range(plan.seeds_of(members))
    ]
    seen: dict[tuple[str, str, int], list[Seen]] = {}
    for task, each in zip(tasks, run_all(_run, tasks, jobs, "trials"), strict=True):
        seen.setdefault((task.protocol, task.fault, task.members), []).append(each)
    cells = tuple(_cell(*key, trials) for key, trials in seen.items())
    return Comparison(plan, cells, _splits(plan, jobs) if "raft" in plan.protocols else ())


def _run(task: Task) -> Seen:
    try:
        return run_trial(PROTOCOLS[task.protocol].build, FAULTS[task.fault], task.members, task.seed)
    except NeverReady as error:
        where = f"{task.protocol}, {task.fault}, {task.members} members, seed {task.seed}"
        raise NeverReady(f"{where}: {error}") from None


def _cell(protocol: str, fault: str, members: int, trials: Sequence[Seen]) -> Cell:
    gaps = sorted(each.gap_s for each in trials)
    messages = sorted(each.messages for each in trials if each.messages is not None)
    return Cell(
        protocol=protocol,
        fault=fault,
        members=members,
        trials=len(trials),
        gap_p50_s=_short(at_share(gaps, 0.5)),
        gap_p95_s=_short(at_share(gaps, 0.95)),
        gap_worst_s=_short(gaps[-1]),
        down_mean_s=_mean([each.down_s for each in trials]),
        two_trials=sum(each.two_s > 0 for each in trials),
        two_mean_s=_mean([each.two_s for each in trials]),
        two_worst_s=_short(max(each.two_s for each in trials)),
        two_times_mean=_mean([each.two_times for each in trials]),
        changes_mean=_mean([each.changes for each in trials]),
        needless_mean=_mean([each.needless for each in trials]),
        lost_mean=_mean([each.lost for each in trials]),
        lost_worst=max(each.lost for each in trials),
        stale_trials=sum(each.stale_by > 0 for each in trials),
        stale_worst=max(each.stale_by for each in trials),
        messages=int(at_share(messages, 0.5)) if messages else None,
        violations=tuple(each.violation for each in trials if each.violation),
    )


def _splits(plan: Plan, jobs: int) -> tuple[Split, ...]:
    seeds = 10 * plan.seeds
    tasks = [(spread, seed) for spread in SPREADS_MS for seed in range(seeds)]
    took = list(run_all(_elect, tasks, jobs, "timeouts of Raft"))
    splits = []
    for number, (low, high) in enumerate(SPREADS_MS):
        times = sorted(took[number * seeds : (number + 1) * seeds])
        ends = (_short(at_share(times, 0.5)), _short(at_share(times, 0.95)), _short(times[-1]))
        splits.append(Split(low, high, seeds, *ends))
    return tuple(splits)


def _elect(task: tuple[tuple[int, int], int]) -> float:
    return election_s(*task)


def _sheet(key: str) -> Mapping[str, Any]:
    protocol = PROTOCOLS[key]
    return {
        "key": protocol.key,
        "title": protocol.title,
        "source": protocol.source,
        "weaknesses": list(protocol.weaknesses),
        "is_synchronous": protocol.is_synchronous,
    }


def _mean(values: Sequence[float]) -> float:
    return _short(sum(values) / len(values))


def _short(seconds: float) -> float:
    """To the millisecond: what is beyond is noise of the draw."""
    return round(seconds, 3)
