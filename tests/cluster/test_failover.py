"""The faults of the drill end as they should on a real cluster. Judged by the drill's own client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hamgr.core.pipeline import STAGES
from hamgr.drill.cluster import Cluster
from hamgr.drill.faults import FAULTS
from hamgr.drill.member import Member
from hamgr.drill.run import Outcome, run_drill

pytestmark = pytest.mark.cluster


def outcome_of(cluster: Cluster, fault: str) -> Outcome:
    """Of a drill that was carried out to its end, with every member back by itself."""
    outcome = run_drill(cluster, FAULTS[fault], lambda _: None)
    assert outcome.error == ""
    assert outcome.verdict is not None
    assert set(outcome.verdict.rejoin_s) == {member.name for member in cluster.members}
    return outcome


def assert_in_order(record: Mapping[str, Any]) -> None:
    """Stages stand in order; none that was measured has a negative length or begins before the one before it."""
    stages = record["stages"]
    assert [stage["name"] for stage in stages] == list(STAGES)
    known = [stage for stage in stages if stage["start_s"] is not None and stage["end_s"] is not None]
    assert known
    starts = [stage["start_s"] for stage in known]
    assert starts == sorted(starts)
    assert all(stage["start_s"] <= stage["end_s"] for stage in known)


def assert_no_two_primaries(outcome: Outcome) -> None:
    assert outcome.verdict is not None
    assert outcome.verdict.two_primaries == ()
    assert outcome.verdict.timelines_twice == ()


def assert_handed_over(cluster: Cluster, former: Member, outcome: Outcome) -> Mapping[str, Any]:
    """One other member leads; the record says so and, where something was lost, owned up to it. The record."""
    assert_no_two_primaries(outcome)
    assert outcome.verdict is not None
    assert outcome.verdict.leader_changes == 1
    record = outcome.record
    assert record is not None
    assert_in_order(record)
    assert (record["former"], record["leader"]) == (former.name, cluster.need_leader().name)
    assert cluster.need_leader() is not former
    lost = outcome.verdict.lost + outcome.verdict.lost_pinned
    # Every lost row took more than a byte of WAL. Null: what the former leader had written is not known.
    assert record["at_risk_bytes"] is None or lost <= record["at_risk_bytes"]
    return record


def test_switchover_loses_nothing(cluster: Cluster) -> None:
    former = cluster.need_leader()
    outcome = outcome_of(cluster, "switchover")
    record = assert_handed_over(cluster, former, outcome)
    assert outcome.is_good
    assert (record["cause"], record["at_risk_bytes"]) == ("switchover", 0)
    assert all(stage["end_s"] is not None for stage in record["stages"])


def test_lost_member_is_replaced_and_comes_back_as_a_replica(cluster: Cluster) -> None:
    former = cluster.need_leader()
    assert_handed_over(cluster, former, outcome_of(cluster, "member-lost"))


def test_killed_server_is_started_in_place_or_a_replica_that_has_everything_leads(cluster: Cluster) -> None:
    """Which of both is decided by evidence: whether a replica had received all WAL on the dead server's disk."""
    former = cluster.need_leader()
    outcome = outcome_of(cluster, "postgres-killed")
    assert outcome.is_good
    if cluster.need_leader() is former:
        assert outcome.verdict is not None
        assert outcome.verdict.leader_changes == 0
    else:
        record = assert_handed_over(cluster, former, outcome)
        assert (record["cause"], record["at_risk_bytes"]) == ("server_crashed", 0)


@pytest.mark.parametrize("fault", ["agent-killed", "agent-replaced", "etcd-leader-killed"])
def test_nobody_but_the_same_member_leads_after(cluster: Cluster, fault: str) -> None:
    leader = cluster.need_leader()
    outcome = outcome_of(cluster, fault)
    assert_no_two_primaries(outcome)
    assert outcome.is_good
    assert outcome.verdict is not None
    assert outcome.verdict.leader_changes == 0
    assert cluster.need_leader() is leader
    assert outcome.record is None
