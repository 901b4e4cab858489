"""SIGTERM to a member's guard, as a service manager sends it."""

from __future__ import annotations

import pytest

from hamgr.drill.cluster import Cluster
from tests.cluster.bench import sql, stop, term, wait_until

pytestmark = pytest.mark.cluster


def test_primary_that_is_told_to_end_hands_over_and_rejoins_when_started_again(cluster: Cluster) -> None:
    leader, before = cluster.need_leader(), term(cluster)
    sql(leader, "CREATE TABLE IF NOT EXISTS witness (n int)")
    (count,) = sql(leader, "INSERT INTO witness VALUES (3) RETURNING (SELECT count(*) + 1 FROM witness)")
    assert stop(leader) == 0
    assert not (leader.data_dir / "postmaster.pid").exists()
    successor = wait_until("the successor leads", cluster.leader)
    assert successor is not leader
    assert term(cluster) == before + 1
    assert sql(successor, "SELECT count(*) FROM witness") == [count]
    sql(successor, "INSERT INTO witness VALUES (4)")
    cluster.start_member(leader)
    assert cluster.wait_until_settled(45.0) is successor
    assert leader.postmaster_pid()


def test_replica_that_is_told_to_end_leaves_the_leader_alone_and_rejoins(cluster: Cluster) -> None:
    leader, replica, before = cluster.need_leader(), cluster.replicas()[0], term(cluster)
    assert stop(replica) == 0
    assert not (replica.data_dir / "postmaster.pid").exists()
    assert cluster.leader() is leader
    cluster.start_member(replica)
    assert cluster.wait_until_settled(45.0) is leader
    assert term(cluster) == before
