"""Garbage under the cluster's keys in etcd, written by whomever: nobody crashes, nobody else leads, it is reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import PREFIX, Cli, delete, log_of, put, raw, sql, wait_until

pytestmark = pytest.mark.cluster

NO_TEXT = b"\xff\xfe\x00garbage"
CUT_OFF = b'{"half": "wri'
A_LIST = b'["a list"]'

MENDED = {
    "failsafe": A_LIST,
    "failover": NO_TEXT,
    "status": CUT_OFF,
    "members/leader": CUT_OFF,
    "members/replica": NO_TEXT,
    "initialize": CUT_OFF,
    "sync": NO_TEXT,
}
"""Keys that the members write anew as soon as they see that they cannot be read."""

LEFT = {
    "config": CUT_OFF,
    "term": NO_TEXT,
    "history": CUT_OFF,
    "ballots/db9": CUT_OFF,
    "failovers/1": NO_TEXT,
}
"""Keys that a person has to mend: the last good value is lost, and the cluster does not need it while it is led."""


@pytest.fixture
def alive(cluster: Cluster, undisturbed: Member) -> Iterator[Member]:
    """The leader. No agent is another process when the test is over, and none has written a traceback."""
    agents = [member.agent_pid() for member in cluster.members]
    tracebacks = [log_of(member).count("Traceback") for member in cluster.members]
    yield undisturbed
    assert [member.agent_pid() for member in cluster.members] == agents
    assert [log_of(member).count("Traceback") for member in cluster.members] == tracebacks


@pytest.mark.parametrize("place", MENDED)
def test_garbage_that_members_can_mend_is_mended(cluster: Cluster, alive: Member, place: str) -> None:
    key = place_of(cluster, place)
    put(cluster, key, MENDED[place])
    wait_until(f"{key} is mended", lambda: raw(cluster, key) != MENDED[place])
    assert alive.is_leader()


@pytest.mark.parametrize("place", LEFT)
def test_garbage_that_nobody_can_mend_is_reported_and_harms_nobody(
    cluster: Cluster, alive: Member, hamgr: Cli, place: str
) -> None:
    key = place_of(cluster, place)
    former = raw(cluster, key)
    put(cluster, key, LEFT[place])
    try:
        wait_until_noticed(cluster)
        said = hamgr("list")
        assert said.status == 0
        # Records are read one by one, and only by who asks for them.
        assert f"Key not understood: {PREFIX}{key}" in said.out or place.startswith("failovers/")
        assert hamgr("failovers").status == 0
        assert alive.is_leader()
        sql(alive, "INSERT INTO witness VALUES (2)")
    finally:
        if former is None:
            delete(cluster, key)
        else:
            put(cluster, key, former)


@pytest.mark.parametrize("value", [NO_TEXT, b"db9"], ids=["no text", "somebody else"])
def test_overwritten_leader_key_ends_in_one_leader_and_nothing_lost(cluster: Cluster, value: bytes) -> None:
    """Whoever overwrites the leader key takes the lead away: that is what the key is for. The cluster recovers."""
    leader = cluster.need_leader()
    sql(leader, "CREATE TABLE IF NOT EXISTS witness (n int)")
    sql(leader, "INSERT INTO witness VALUES (5)")
    count = sql(leader, "SELECT count(*) FROM witness")
    put(cluster, "leader", value)
    wait_until("the leader has seen it", lambda: raw(cluster, "leader") != value or not leader.is_leader(), 15.0)
    # On no lease, so that it does not end by itself; a person takes it away.
    if raw(cluster, "leader") == value:
        delete(cluster, "leader")
    successor = cluster.wait_until_settled(45.0)
    assert sql(successor, "SELECT count(*) FROM witness") == count


def place_of(cluster: Cluster, place: str) -> str:
    """The key, with the members' own names put in."""
    return (
        place.replace("leader", cluster.need_leader().name).replace("replica", cluster.replicas()[0].name)
        if place.startswith("members/")
        else place
    )


def wait_until_noticed(cluster: Cluster) -> None:
    """Every member has read etcd since."""
    seen = {member.name: member.says().get("dcs_last_seen", 0) for member in cluster.members}
    for member in cluster.members:
        wait_until(f"{member.name} reads etcd", lambda m=member: m.says().get("dcs_last_seen", 0) > seen[m.name], 15.0)
