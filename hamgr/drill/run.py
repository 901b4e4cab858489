"""One drill: settle, write, harm, wait, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from hamgr.drill.client import Client, make_table, stored_numbers
from hamgr.drill.cluster import Cluster
from hamgr.drill.errors import DrillError
from hamgr.drill.faults import Fault
from hamgr.drill.member import Member
from hamgr.drill.verdict import Verdict, judge
from hamgr.drill.watch import Watch

Say = Callable[[str], None]
"""Where progress goes, a short sentence at a time."""

_SETTLE_TIMEOUT_S = 120.0
_STEADY_S = 1.0
_RECORD_TIMEOUT_S = 3.0

_FLOW_TIMEOUT_S = 60.0
"""For writes to come back, beyond the lease and the time that a fault is held."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one fault. `record`: hamgr's own account of the failover, None where it made none.

    `error`: why the drill could not be finished; then there is no verdict.
    """

    fault: str
    ttl_s: float
    verdict: Verdict | None
    record: Mapping[str, Any] | None = None
    error: str = ""
    moved_needlessly: bool = False
    """The leader changed by a fault that should not change it."""
    undone_s: float = 0.0
    """From the fault until it was undone; a member that was killed cannot rejoin before."""

    @property
    def is_good(self) -> bool:
        """Carried out, nothing lost, never two primaries, no leader change without need."""
        return self.verdict is not None and self.verdict.is_safe and not self.moved_needlessly

    def as_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault,
            "ttl_s": self.ttl_s,
            "is_good": self.is_good,
            "error": self.error,
            "moved_needlessly": self.moved_needlessly,
            "undone_s": self.undone_s,
            "verdict": None if self.verdict is None else self.verdict.as_json(),
            "record": None if self.record is None else dict(self.record),
        }


def run_drill(cluster: Cluster, fault: Fault, say: Say) -> Outcome:
    """Carry out one fault on a running cluster and judge it; true on return: the cluster is settled again.

    An outcome with `error` instead when it does not settle, or writes do not come back.
    """
    try:
        return _run(cluster, fault, say)
    except DrillError as error:
        return Outcome(fault.name, cluster.plan.ttl_s, None, error=str(error))
    except psycopg.Error as error:
        return Outcome(fault.name, cluster.plan.ttl_s, None, error=f"SQL: {error}")


def _run(cluster: Cluster, fault: Fault, say: Say) -> Outcome:
    say("waiting until every member is leader or streaming replica")
    leader = cluster.wait_until_settled(_SETTLE_TIMEOUT_S)
    make_table(leader.dsn, cluster.password)
    term_before = newest_term(leader)
    directory = cluster.logs / f"client-{time.monotonic_ns()}"
    client = Client(cluster.client_host, cluster.targets, cluster.password, directory)
    try:
        say("client warms up")
        client.wait_until_writing(time.monotonic_ns(), _STEADY_S, 30.0)
        with Watch(cluster.members) as watch:
            fault_ns, undone_ns = _harm(cluster, fault, client, say)
            say("waiting until every member is back in its place")
            final = cluster.wait_until_settled(_SETTLE_TIMEOUT_S)
            client.wait_until_writing(time.monotonic_ns(), _STEADY_S / 2, 30.0)
            end_ns = time.monotonic_ns()
        rejoin_s = watch.rejoin_s(fault_ns)
    finally:
        client.stop()
    verdict = judge(
        client.routed.read(),
        client.pinned.read(),
        stored_routed=stored_numbers(final.dsn, cluster.password, "routed"),
        stored_pinned=stored_numbers(final.dsn, cluster.password, "pinned"),
        fault_ns=fault_ns,
        end_ns=end_ns,
        rejoin_s=rejoin_s,
    )
    record = _newer_record(final, term_before) if verdict.leader_changes else None
    needless = not fault.moves_leader and verdict.leader_changes > 0
    undone_s = (undone_ns - fault_ns) / 1e9
    return Outcome(fault.name, cluster.plan.ttl_s, verdict, record, "", needless, undone_s)


def _harm(cluster: Cluster, fault: Fault, client: Client, say: Say) -> tuple[int, int]:
    """Arm, wait until writes flow again, undo. Returns when it was armed and undone (CLOCK_MONOTONIC ns)."""
    say(f"fault: {fault.title}")
    hold_s = fault.hold_time_s(cluster.plan.ttl_s)
    fault_ns = time.monotonic_ns()
    undo = fault.arm(cluster)
    try:
        say("waiting until writes flow again")
        timeout_s = hold_s + cluster.plan.ttl_s + _FLOW_TIMEOUT_S
        client.wait_until_writing(fault_ns + int(hold_s * 1e9), _STEADY_S, timeout_s)
    finally:
        undone_ns = time.monotonic_ns()
        undo()
    return fault_ns, undone_ns


def newest_term(member: Member) -> int:
    """Term of the newest failover record that the member shows, 0 if it shows none."""
    return max((_term_of(record) for record in _records(member)), default=0)


def _newer_record(member: Member, term: int) -> dict[str, Any] | None:
    """Newest record of a term above `term`, awaited for a moment: its last stage is written afterwards."""
    deadline = time.monotonic() + _RECORD_TIMEOUT_S
    while True:
        newer = [record for record in _records(member) if _term_of(record) > term]
        newest = max(newer, key=_term_of, default=None)
        if (newest is not None and _is_routed(newest)) or time.monotonic() > deadline:
            return newest
        time.sleep(0.1)


def _records(member: Member) -> list[dict[str, Any]]:
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
