"""One leadership change as a timed pipeline: fault, detect, fence, vote, elect, promote, writable, routed.

A record holds only what somebody measured. A stage that nobody saw is unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime

STAGES = ("detect", "fence", "vote", "elect", "promote", "writable", "routed")
"""In order. `fault` is the instant zero of a record, not a stage with a length."""
LATEST = 1e11
"""Seconds: no clock shows more within a calendar's years."""
LARGEST = 1 << 64


@dataclass(frozen=True, slots=True)
class Stage:
    """`start_s` and `end_s` count from the fault; None: nobody saw it. `by` measured, on its `clock`."""

    name: str
    start_s: float | None = None
    end_s: float | None = None
    by: str = ""
    clock: str = ""

    @property
    def is_known(self) -> bool:
        return self.start_s is not None and self.end_s is not None


@dataclass(frozen=True, slots=True)
class Record:
    """What happened in one change of leader, and why. Kept in etcd under `failovers/<term>`."""

    term: Term
    cause: str
    """Code of hamgr.core.reasons: switchover, server_crashed, leader_lost ..."""
    leader: str
    """The new leader."""
    former: str
    """The old leader, empty at bootstrap."""
    at: WallTime
    """When the new leader was writable, or its server ended before it was, on its wall clock: for people."""
    timeline: Timeline
    lsn: Lsn
    """Where the new timeline begins."""
    at_risk_bytes: int | None
    """WAL known to be on the old leader and not on the new one; None: not known."""
    may_be_more: bool
    """True where nobody read the end of the old leader's WAL: what it wrote last, nobody knows of."""
    stages: tuple[Stage, ...]
    ballots: Mapping[str, str] = field(default_factory=dict)
    """Member -> 'timeline/lsn/priority' as compared by the transaction."""
    budget_s: Mapping[str, float] = field(default_factory=dict)
    """Bound by stage that follows from the configuration."""
    notes: tuple[str, ...] = ()
    """What became of poolers and load balancers, in sentences."""

    def stage(self, name: str) -> Stage:
        """The stage of that name; unknown if the record has none."""
        return next((stage for stage in self.stages if stage.name == name), Stage(name))

    @property
    def over_budget(self) -> tuple[str, ...]:
        """Names of the stages that took longer than their bound."""
        return tuple(
            stage.name
            for stage in self.stages
            if stage.start_s is not None
            and stage.end_s is not None
            and stage.end_s - stage.start_s > self.budget_s.get(stage.name, float("inf"))
        )


@dataclass(frozen=True, slots=True)
class Passage:
    """A leadership change under way, as its future leader sees it. Instants of this host's clock."""

    term: Term
    cause: str
    former: str
    seen_at: Instant
    """When this member learned that there is no leader, or read the offer."""
    fault_at: Instant | None = None
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    """From the offer: stage -> seconds from fault to the stage's end, on the former leader's clock."""
    former_lsn: Lsn | None = None
    """Last known end of the former leader's WAL."""
    former_end_is_read: bool = False
    """It is its very end, or with synchronous mode no commit lies beyond what was compared."""
    former_had_another_timeline: bool = False
    """That position was on a timeline that this member does not have: it says little of how much is lacking."""
    own_lsn: Lsn | None = None
    voted_at: Instant | None = None
    elected_at: Instant | None = None
    promoted_at: Instant | None = None
    writable_at: Instant | None = None
    verified_at: Instant | None = None
    """When that was known, which is what later steps refer to."""
    routed_at: Instant | None = None
    timeline: Timeline = Timeline(0)
    lsn: Lsn = Lsn(0)
    ballots: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    recorded: bool = False
    recorded_routed: bool = False
    recorded_notes: int = 0
    in_history: bool = False
    checkpointed: bool = False

    def marked(self, **instants: Any) -> Passage:
        """A copy with the given fields set."""
        return replace(self, **instants)


def record_of(passage: Passage, me: str, at: WallTime, budget_s: Mapping[str, float]) -> Record:
    """The record of a passage that has come to `writable`, or to its end. Stages not measured are left unknown."""
    at_risk: int | None = None
    if passage.former_lsn is not None and passage.own_lsn is not None:
        at_risk = max(0, passage.former_lsn - passage.own_lsn)
        if not at_risk and passage.former_had_another_timeline:
            at_risk = None
    return Record(
        term=passage.term,
        cause=passage.cause,
        leader=me,
        former=passage.former,
        at=at,
        timeline=passage.timeline,
        lsn=passage.lsn,
        at_risk_bytes=at_risk,
        may_be_more=not passage.former_end_is_read and passage.cause != "bootstrap",
        stages=_stages(passage, me),
        ballots=passage.ballots,
        budget_s=budget_s,
        notes=passage.notes,
    )


def _stages(passage: Passage, me: str) -> tuple[Stage, ...]:
    zero = passage.fault_at
    handed = passage.elapsed_s
    stages = []
    if handed:
        stages.append(Stage("detect", 0.0, handed.get("detect"), passage.former, "boottime"))
        stages.append(Stage("fence", handed.get("detect"), handed.get("fence"), passage.former, "boottime"))
    else:
        detected = None if zero is None else passage.seen_at - zero
        stages.append(Stage("detect", None if zero is None else 0.0, detected, me, "boottime"))
        stages.append(Stage("fence"))
    marks = (
        ("vote", passage.seen_at, passage.voted_at),
        ("elect", passage.voted_at or passage.seen_at, passage.elected_at),
        ("promote", passage.elected_at, passage.promoted_at),
        ("writable", passage.promoted_at, passage.writable_at),
        ("routed", passage.writable_at, passage.routed_at),
    )
    base = zero if zero is not None else passage.seen_at
    for name, start, end in marks:
        if start is None or end is None:
            stages.append(Stage(name))
        else:
            stages.append(Stage(name, start - base, end - base, me, "boottime"))
    return tuple(stages)


def record_as_json(record: Record) -> dict[str, Any]:
    """Plain values of a record, for etcd, REST and CLI alike. Seconds from the fault, rounded to 0.1 ms."""

    def rounded(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds, 4)

    return {
        "term": record.term,
        "cause": record.cause,
        "leader": record.leader,
        "former": record.former,
        "at": record.at,
        "timeline": record.timeline,
        "lsn": str(record.lsn),
        "at_risk_bytes": record.at_risk_bytes,
        "may_be_more": record.may_be_more,
        "stages": [
            {
                "name": stage.name,
                "start_s": rounded(stage.start_s),
                "end_s": rounded(stage.end_s),
                "by": stage.by,
                "clock": stage.clock,
            }
            for stage in record.stages
        ],
        "ballots": dict(record.ballots),
        "budget_s": dict(record.budget_s),
        "over_budget": list(record.over_budget),
        "notes": list(record.notes),
    }


def is_record(values: Mapping[str, Any]) -> bool:
    """What there is of a record's values is of the types that `record_as_json` writes; any may be missing."""
    stages, over_budget, notes = (values.get(name) or [] for name in ("stages", "over_budget", "notes"))
    ballots, budget_s = (values.get(name) or {} for name in ("ballots", "budget_s"))
    if not all(isinstance(each, list) for each in (stages, over_budget, notes)):
        return False
    if not all(isinstance(each, Mapping) for each in (*stages, ballots, budget_s)):
        return False
    texts = [values.get(name) for name in ("cause", "leader", "former", "lsn")]
    texts += [stage.get(name) for stage in stages for name in ("name", "by", "clock")]
    seconds = [stage.get(name) for stage in stages for name in ("start_s", "end_s")]
    counts = [values.get(name) for name in ("term", "timeline", "at_risk_bytes")]
    return (
        all(text is None or isinstance(text, str) for text in (*texts, *over_budget, *notes, *ballots.values()))
        and all(_is_number(each, LATEST) for each in (values.get("at"), *seconds, *budget_s.values()))
        and all(_is_number(each, LARGEST) for each in counts)
    )


def _is_number(value: object, bound: float) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) < bound)
