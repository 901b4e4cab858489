"""What a member counts while its agent runs: permits that were refused, and how long changes of leader took.

A change of leader is counted by its new leader alone, each stage once, when it is known and the record is kept in etcd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hamgr.core.budget import budget_by_stage
from hamgr.core.decide import Decision
from hamgr.core.pipeline import STAGES, Record, record_of
from hamgr.core.reasons import Code
from hamgr.core.rules.lead import unproven
from hamgr.core.scene import Scene
from hamgr.core.units import Term, WallTime

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets: from one hop in a switchover to a lease of half a minute."""

Refusal = tuple[str, str]
"""Reason code, and which check of the server speaks against the permit; empty where none does."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations by size. `counts` has one number more than there are bounds: what is longer than all of them."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    sum_s: float = 0.0

    def with_one(self, length_s: float) -> Histogram:
        """A copy that has counted that length too; a negative one, from two clocks, as none."""
        counts = list(self.counts)
        counts[sum(length_s > bound for bound in BOUNDS_S)] += 1
        return Histogram(tuple(counts), self.sum_s + max(0.0, length_s))


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts since the agent started. `counted` holds what was counted of the change that led to `term`."""

    refusals: Mapping[Refusal, int] = field(default_factory=dict)
    stages: Mapping[str, Histogram] = field(default_factory=lambda: dict.fromkeys(STAGES, Histogram()))
    over_budget: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    gaps: Histogram = Histogram()
    """From the fault to the first write, where it is known when the fault was."""
    term: Term = Term(0)
    counted: frozenset[str] = frozenset()


def counted(tally: Tally, scene: Scene, decision: Decision) -> Tally:
    """The tally after the decision that was made in that scene."""
    if not decision.may_renew:
        refusal = (decision.reason.code.value, _check(scene, decision))
        tally = replace(tally, refusals={**tally.refusals, refusal: tally.refusals.get(refusal, 0) + 1})
    passage = scene.state.passage
    if passage is None or not passage.recorded or passage.writable_at is None:
        return tally
    if passage.term != tally.term:
        tally = replace(tally, term=passage.term, counted=frozenset())
    if tally.counted and not (passage.routed_at is not None and "routed" not in tally.counted):
        return tally
    record = record_of(passage, scene.me, WallTime(0.0), budget_by_stage(scene.policy, passage.cause))
    return _with_record(tally, record, is_dated=passage.fault_at is not None)


def _check(scene: Scene, decision: Decision) -> str:
    return unproven(scene) if decision.reason.code in (Code.LEADING, Code.LEADING_BY_PEERS) else ""


def _with_record(tally: Tally, record: Record, *, is_dated: bool) -> Tally:
    """Adds the stages that were not counted yet."""
    stages, over_budget, gaps = dict(tally.stages), dict(tally.over_budget), tally.gaps
    new = [stage for stage in record.stages if stage.name not in tally.counted]
    for stage in new:
        if stage.start_s is None or stage.end_s is None:
            continue
        stages[stage.name] = stages[stage.name].with_one(stage.end_s - stage.start_s)
        over_budget[stage.name] += stage.name in record.over_budget
        if stage.name == "writable" and is_dated:
            gaps = gaps.with_one(stage.end_s)
    known = {stage.name for stage in record.stages if stage.is_known}
    return replace(tally, stages=stages, over_budget=over_budget, gaps=gaps, counted=tally.counted | known)
