"""Garbage under the cluster's keys in etcd, written by whomever: nobody crashes, nobody else leads, it is reported."""

from __future__ import annotations

import pytest

from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import PREFIX, Cli, delete, log_of, put, raw, sql, wait_until

pytestmark = pytest.mark.cluster

GARBAGE = (b"\xff\xfe\x00garbage", b'{"half": "wri', b'["a list"]')
MENDED_BY_MEMBERS = ("status", "failsafe", "failover", "sync", "members/leader", "members/replica", "ballots/db9")
LEFT_TO_PEOPLE = ("config", "initialize", "term", "history", "failovers/1")


@pytest.mark.parametrize("place", [*MENDED_BY_MEMBERS, *LEFT_TO_PEOPLE, "leader"])
def test_garbage_harms_nobody(cluster: Cluster, undisturbed: Member, hamgr: Cli, place: str) -> None:
    key = place_of(cluster, place)
    agents = [member.agent_pid() for member in cluster.members]
    logs_before = [log_of(member).count("Traceback") for member in cluster.members]
    former = raw(cluster, key)
    for value in GARBAGE:
        put(cluster, key, value)
        wait_until_noticed(cluster)
        assert reported(hamgr, key) or raw(cluster, key) != value
        assert undisturbed.is_leader()
        sql(undisturbed, "INSERT INTO witness VALUES (2)")
    if place in LEFT_TO_PEOPLE and former is not None:
        put(cluster, key, former)
    elif former is None and raw(cluster, key) in GARBAGE:
        delete(cluster, key)
    wait_until(f"{key} can be read again", lambda: not reported(hamgr, key))
    assert [member.agent_pid() for member in cluster.members] == agents
    assert [log_of(member).count("Traceback") for member in cluster.members] == logs_before


def place_of(cluster: Cluster, place: str) -> str:
    """The key, with the members' own names put in."""
    return (
        place.replace("leader", cluster.need_leader().name).replace("replica", cluster.replicas()[0].name)
        if place.startswith("members/")
        else place
    )


def reported(hamgr: Cli, key: str) -> bool:
    """Whether `hamgr list` names the key as one that cannot be understood."""
    said = hamgr("list")
    assert said.status == 0
    return f"Key not understood: {PREFIX}{key}" in said.out


def wait_until_noticed(cluster: Cluster) -> None:
    """Every member has read etcd since, and decided on what it read."""
    seen = {member.name: member.says().get("dcs_last_seen", 0) for member in cluster.members}
    for member in cluster.members:
        wait_until(
            f"{member.name} reads etcd", lambda m=member: m.says().get("dcs_last_seen", 0) > seen[m.name] + 1, 15.0
        )
