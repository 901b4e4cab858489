"""One drill: settle, write, harm, wait, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psycopg

from hamgr.drill.base_cluster import BaseCluster
from hamgr.drill.base_member import BaseMember
from hamgr.drill.client import Client, NotWriting, make_table, stored_numbers
from hamgr.drill.course import PINNED, Course, course_of
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import Fault, Victims, nothing
from hamgr.drill.plan import Plan
from hamgr.drill.predicted import Gap, gap_of
from hamgr.drill.verdict import Verdict, judge, leaderships_of
from hamgr.drill.watch import Watch

Say = Callable[[str], None]
"""Where progress goes, a short sentence at a time."""

_SETTLE_TIMEOUT_S = 120.0
_STEADY_S = 1.0
_RECORD_TIMEOUT_S = 3.0

_FLOW_TIMEOUT_S = 20.0
"""For writes to come back, beyond the lease and the time that a fault is held."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one fault. `record`: hamgr's own account of the last failover, None where it made none.

    `error`: why the drill could not be finished; then there is no verdict.
    """

    fault: str
    ttl_s: float
    verdict: Verdict | None
    record: Mapping[str, Any] | None = None
    error: str = ""
    moved_needlessly: bool = False
    """The leader changed by a fault that should not change it, or more often than the fault explains."""
    undone_s: float = 0.0
    """From the fault until it was undone; a member that was killed cannot rejoin before."""
    stayed: bool = False
    """The leader did not change, although it was of no use."""
    stalled: bool = False
    """Writes did not come back before the fault was undone, although another member could have taken them."""
    title: str = ""
    """The fault in a sentence."""
    course: Course | None = None
    """What a picture is made from; None where there is no verdict."""
    predicted: Gap | None = None
    """Write gap that the product predicts for this fault: best, typical, worst; None: nothing."""

    @property
    def is_good(self) -> bool:
        """Carried out, safe, writable in spite of the fault, no leader change without need and none missing."""
        is_as_wanted = not (self.moved_needlessly or self.stayed or self.stalled)
        return self.verdict is not None and self.verdict.is_safe and is_as_wanted

    def as_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault,
            "ttl_s": self.ttl_s,
            "is_good": self.is_good,
            "error": self.error,
            "moved_needlessly": self.moved_needlessly,
            "stayed": self.stayed,
            "stalled": self.stalled,
            "undone_s": self.undone_s,
            "verdict": None if self.verdict is None else self.verdict.as_json(),
            "record": None if self.record is None else dict(self.record),
            "title": self.title,
            "course": None if self.course is None else asdict(self.course),
            "predicted": self.predicted,
        }


@dataclass(frozen=True, slots=True)
class Harm:
    """When a fault was armed and undone (CLOCK_MONOTONIC ns), and what was seen meanwhile."""

    armed_ns: int
    undone_ns: int
    lasted: bool
    """Whether it had to be undone at all."""
    writes_came_back: bool
    """Before it was undone."""

    @property
    def ended_ns(self) -> int:
        """From here on nothing keeps a member from coming back."""
        return self.undone_ns if self.lasted else self.armed_ns


def run_drill(cluster: BaseCluster, fault: Fault, say: Say) -> Outcome:
    """Carry out one fault on a running cluster and judge it; true on return: the cluster is settled again.

    An outcome with `error` instead when it does not settle, or writes do not come back.
    """
    try:
        return _run(cluster, fault, say)
    except DrillError as error:
        return Outcome(fault.name, cluster.plan.ttl_s, None, error=str(error), title=fault.title)
    except psycopg.Error as error:
        return Outcome(fault.name, cluster.plan.ttl_s, None, error=f"SQL: {error}", title=fault.title)


def _run(cluster: BaseCluster, fault: Fault, say: Say) -> Outcome:
    say("waiting until every member is leader or streaming replica")
    leader = cluster.wait_until_settled(_SETTLE_TIMEOUT_S)
    victims = Victims(cluster, leader, tuple(member for member in cluster.members if member is not leader))
    make_table(leader.dsn, cluster.password)
    term_before = newest_term(leader)
    client = Client(cluster.client_host, cluster.targets, cluster.password, cluster.logs / "client", cluster.route)
    try:
        say("client warms up")
        client.wait_until_writing(time.monotonic_ns(), _STEADY_S, 30.0)
        with Watch(cluster.members) as watch:
            harm = _harm(victims, fault, client, say)
            say("waiting until every member is back in its place")
            final = cluster.wait_until_settled(_SETTLE_TIMEOUT_S)
            client.wait_until_writing(time.monotonic_ns(), _STEADY_S / 2, 30.0)
            end_ns = time.monotonic_ns()
    finally:
        client.stop()
    acks = client.routed.read(), client.pinned.read()
    changed = len(leaderships_of([*acks[0], *acks[1]])) > 1
    records = _newer_records(final, term_before) if changed else []
    verdict = judge(
        *acks,
        stored_routed=stored_numbers(final.dsn, cluster.password, "routed"),
        stored_pinned=stored_numbers(final.dsn, cluster.password, "pinned"),
        fault_ns=harm.armed_ns,
        end_ns=end_ns,
        rejoin_s=watch.rejoin_s(harm.ended_ns),
        synchronous=cluster.plan.synchronous_mode != "off",
        at_risk_bytes=[None if record.get("may_be_more") else record.get("at_risk_bytes") for record in records],
    )
    course = course_of(
        {"routed": acks[0], PINNED: acks[1]},
        verdict,
        fault_ns=harm.armed_ns,
        end_ns=end_ns,
        undone_ns=harm.undone_ns if harm.lasted else None,
        records=records,
    )
    predicted = gap_of(fault.name, cluster.predicted_gaps)
    return replace(outcome_of(fault, cluster.plan, harm, verdict, records), course=course, predicted=predicted)


def outcome_of(fault: Fault, plan: Plan, harm: Harm, verdict: Verdict, records: Sequence[Mapping[str, Any]]) -> Outcome:
    """What a verdict means for this fault, on a cluster of that plan. `records`: in the order of their terms."""
    must_go_on = not fault.may_stop_writes(synchronous=plan.synchronous_mode != "off")
    return Outcome(
        fault.name,
        plan.ttl_s,
        verdict,
        records[-1] if records else None,
        moved_needlessly=verdict.leader_changes > fault.changes_allowed,
        undone_s=(harm.undone_ns - harm.armed_ns) / 1e9,
        stayed=fault.moves_leader is True and verdict.leader_changes == 0 and must_go_on,
        stalled=not harm.writes_came_back and must_go_on and fault.is_survivable,
        title=fault.title,
    )


def _harm(victims: Victims, fault: Fault, client: Client, say: Say) -> Harm:
    """Arm, wait until writes flow again or that takes too long, undo, wait until writes flow."""
    say(f"fault: {fault.title}")
    plan = victims.cluster.plan
    hold_s = fault.hold_time_s(plan.ttl_s)
    held_ns = time.monotonic_ns() + int(hold_s * 1e9)
    armed_ns = time.monotonic_ns()
    undo = fault.arm(victims)
    try:
        say("waiting until writes flow again")
        came_back = _writes_come_back(client, held_ns, hold_s, _flow_timeout_s(fault, plan))
    finally:
        undone_ns = time.monotonic_ns()
        undo()
    if not came_back:
        say("undone; waiting until writes flow again")
        client.wait_until_writing(undone_ns, _STEADY_S, plan.ttl_s + _SETTLE_TIMEOUT_S)
    return Harm(armed_ns, undone_ns, undo is not nothing, came_back)


def _writes_come_back(client: Client, held_ns: int, hold_s: float, patience_s: float) -> bool:
    """Whether writes flow again after `held_ns`; True already where they never ceased."""
    try:
        client.wait_until_writing(held_ns, _STEADY_S, hold_s + patience_s)
    except NotWriting:
        return False
    return True


def _flow_timeout_s(fault: Fault, plan: Plan) -> float:
    """Where nobody can be expected to take writes, there is nothing to wait for."""
    if fault.may_stop_writes(synchronous=plan.synchronous_mode != "off"):
        return 2 * _STEADY_S
    return plan.ttl_s + _FLOW_TIMEOUT_S


def newest_term(member: BaseMember) -> int:
    """Term of the newest failover record that the member shows, 0 if it shows none."""
    return max((_term_of(record) for record in records_of(member)), default=0)


def _newer_records(member: BaseMember, term: int) -> list[dict[str, Any]]:
    """Records of terms above `term`, the newest awaited for a moment: its last stage is written afterwards."""
    deadline = time.monotonic() + _RECORD_TIMEOUT_S
    while True:
        newer = sorted((record for record in records_of(member) if _term_of(record) > term), key=_term_of)
        if (newer and _is_routed(newer[-1])) or time.monotonic() > deadline:
            return newer
        time.sleep(0.1)


def records_of(member: BaseMember) -> list[dict[str, Any]]:
    """Failover records as the member shows them; none when it does not answer."""
    answer = member.get("/failovers")
    try:
        body = answer.json() if answer is not None and answer.status_code == 200 else []
    except ValueError:
        return []
    return [record for record in body if isinstance(record, dict)] if isinstance(body, list) else []


def _term_of(record: Mapping[str, Any]) -> int:
    term = record.get("term", 0)
    return term if isinstance(term, int) else 0


def _is_routed(record: Mapping[str, Any]) -> bool:
    stages = record.get("stages") or []
    return any(stage.get("name") == "routed" and stage.get("end_s") is not None for stage in stages)
