"""Another ttl takes effect on leases that are there already, and nobody notices but whoever waits for a lost host."""

from __future__ import annotations

from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import TTL_S, Cli, end, granted_ttl_s, lease_of, left_s, term, wait_until

LONG_S = 120


def keys_of(cluster: Cluster) -> list[str]:
    return ["leader", *(f"members/{member.name}" for member in cluster.members)]


def change_ttl(cluster: Cluster, hamgr: Cli, ttl_s: int) -> None:
    """Every lease that a key of the cluster hangs on is of that ttl."""
    said = hamgr("edit-config", "-s", f"ttl={ttl_s}", "--force")
    assert said.status == 0, said.err
    for key in keys_of(cluster):
        wait_until(f"{key} hangs on a lease of {ttl_s} s", lambda key=key: granted_ttl_s(cluster, key) == ttl_s)


def test_another_ttl_reaches_every_lease_and_disturbs_nobody(cluster: Cluster, undisturbed: Member, hamgr: Cli) -> None:
    guards = [member.guard_pid() for member in cluster.members]
    change_ttl(cluster, hamgr, LONG_S)
    change_ttl(cluster, hamgr, TTL_S)
    assert [member.guard_pid() for member in cluster.members] == guards
    assert lease_of(cluster, "leader") == lease_of(cluster, f"members/{undisturbed.name}")


def test_lost_host_is_replaced_while_its_former_longer_lease_would_still_last(cluster: Cluster, hamgr: Cli) -> None:
    leader, term_before = cluster.need_leader(), term(cluster)
    change_ttl(cluster, hamgr, LONG_S)
    former_lease = lease_of(cluster, "leader")
    change_ttl(cluster, hamgr, TTL_S)
    assert (cluster.need_leader(), term(cluster)) == (leader, term_before)
    end(leader)
    try:
        wait_until("another leads", lambda: cluster.leader() not in (None, leader), timeout_s=LONG_S / 2)
        assert left_s(cluster, former_lease) > 0
    finally:
        cluster.ensure_started(leader)
    assert cluster.wait_until_settled(45.0) is not leader
