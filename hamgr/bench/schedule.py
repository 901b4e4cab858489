"""Which runs share a cluster, and which may have other clusters beside them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hamgr.bench.faults import FAULTS
from hamgr.bench.unit import IDLE, REST
from hamgr.bench.variants import AUTO_FAILOVER, VARIANTS

TASKS = (IDLE, REST, *FAULTS)
"""In the order in which a cluster goes through them: costs before anything was broken."""

Key = tuple[str, str, int]
"""Variant, task, round."""


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """Tasks of one variant in one round, on one cluster as long as all goes well."""

    variant: str
    round: int
    tasks: tuple[str, ...]
    alone: bool
    """Whether no other cluster may run beside."""
    disks: bool


def is_alone(task: str) -> bool:
    """Whether a task's figures are milliseconds or shares of a core, which other clusters would disturb."""
    return task in (IDLE, REST) or FAULTS[task].alone


def applies(variant: str, task: str) -> bool:
    """Whether there is something to measure: pg_auto_failover has no REST."""
    return not (task == REST and VARIANTS[variant].product == AUTO_FAILOVER)


def units(variants: Sequence[str], tasks: Collection[str], rounds: int, done: Collection[Key]) -> tuple[UnitPlan, ...]:
    """What is left to do: first what runs alone, then the rest; round by round, so that no variant has better times.

    Each round begins with another variant.
    """
    planned = [
        unit
        for number in range(1, rounds + 1)
        for variant in _rotated(variants, number - 1)
        for unit in _units_of(variant, number, tasks, done)
    ]
    return tuple(sorted(planned, key=lambda unit: not unit.alone))


def _rotated(variants: Sequence[str], by: int) -> list[str]:
    start = by % len(variants) if variants else 0
    return [*variants[start:], *variants[:start]]


def _units_of(variant: str, number: int, tasks: Collection[str], done: Collection[Key]) -> list[UnitPlan]:
    left = [task for task in TASKS if task in tasks and applies(variant, task) and (variant, task, number) not in done]
    kinds: dict[tuple[bool, bool], list[str]] = {}
    for task in left:
        disks = task in FAULTS and FAULTS[task].disks
        kinds.setdefault((is_alone(task), disks), []).append(task)
    return [UnitPlan(variant, number, tuple(found), *kind) for kind, found in kinds.items()]
