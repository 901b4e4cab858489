"""The table of faults. A fault is a name, a sentence, and `arm(cluster) -> undo`.

`arm` does the harm and returns at once; `undo` takes it back (a killed member starts again) and is called when
the client's writes flow again. Where a host, its agent and its server come back by themselves, `undo` is nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests

from hamgr.drill.cluster import Cluster
from hamgr.drill.errors import DrillError
from hamgr.drill.member import Member
from hamgr.drill.store import StoreMember
from hamgr.drill.subreaper import descendants

Undo = Callable[[], None]

_SWITCHOVER_TIMEOUT_S = 60.0
_SERVICE_MANAGER_S = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table. The fault stays armed for at least hold_s + hold_ttls * ttl.

    That long, because some harm shows only when a lease has run out.
    """

    name: str
    title: str
    arm: Callable[[Cluster], Undo]
    moves_leader: bool
    """Whether somebody else is expected to lead afterwards; where False, a change of leader is a finding."""
    hold_s: float = 0.5
    hold_ttls: float = 0.0
    needs_netns: bool = False

    def hold_time_s(self, ttl_s: float) -> float:
        return self.hold_s + self.hold_ttls * ttl_s


def _nothing() -> None:
    """Undo of a fault after which everything comes back by itself."""


def _switchover(cluster: Cluster) -> Undo:
    leader = cluster.need_leader()
    try:
        answer = requests.post(
            f"{leader.rest_url}/switchover", json={"leader": leader.name}, timeout=_SWITCHOVER_TIMEOUT_S
        )
    except requests.RequestException as error:
        raise DrillError(f"POST /switchover to {leader.name}: {error}") from error
    if answer.status_code >= 300:
        raise DrillError(f"{leader.name} refused the switchover: {answer.status_code} {answer.text}")
    return _nothing


def _postgres_killed(cluster: Cluster) -> Undo:
    os.kill(cluster.need_leader().postmaster_pid(), signal.SIGKILL)
    return _nothing


def _postgres_tree_killed(cluster: Cluster) -> Undo:
    postmaster = cluster.need_leader().postmaster_pid()
    for pid in [postmaster, *descendants(postmaster)]:
        _kill(pid)
    return _nothing


def _agent_killed(cluster: Cluster) -> Undo:
    _kill(cluster.need_leader().agent_pid())
    return _nothing


def _agent_replaced(cluster: Cluster) -> Undo:
    os.kill(cluster.need_leader().guard_pid(), signal.SIGUSR2)
    return _nothing


def _agent_frozen(cluster: Cluster) -> Undo:
    """Thawed by nobody: the guard kills what does not beat, and starts another."""
    os.kill(cluster.need_leader().agent_pid(), signal.SIGSTOP)
    return _nothing


def _guard_killed(cluster: Cluster) -> Undo:
    """The guard alone, started again as a service manager does."""
    member = cluster.need_leader()
    _kill(member.guard_pid())
    member.wait_until_guard_ended()
    cluster.start_member(member)
    return _nothing


def _control_killed(cluster: Cluster) -> Undo:
    """Agent and guard together, started again after a second; the server lives on meanwhile."""
    member = cluster.need_leader()
    agent = member.agent_pid()
    _kill(member.guard_pid())
    _kill(agent)
    member.wait_until_guard_ended()
    time.sleep(_SERVICE_MANAGER_S)
    cluster.start_member(member)
    return _nothing


def _member_lost(cluster: Cluster) -> Undo:
    return _lose(cluster, cluster.need_leader())


def _replica_lost(cluster: Cluster) -> Undo:
    return _lose(cluster, cluster.replicas()[0])


def _lose(cluster: Cluster, member: Member) -> Undo:
    """Guard, agent and server at once, as by a power cut; the kernel still closes their connections."""
    member.host.kill_all()
    return lambda: cluster.start_member(member)


def _host_lost(cluster: Cluster) -> Undo:
    """Power cut of a machine: no packet tells anybody. Comes back with its cable in."""
    network = cluster.network
    member = cluster.need_leader()
    if network is None:
        raise DrillError("host-lost needs hosts of their own: --on netns")
    network.cut(member.host)
    member.host.kill_all()

    def undo() -> None:
        network.mend(member.host)
        cluster.start_member(member)

    return undo


def _etcd_member_killed(cluster: Cluster) -> Undo:
    leader = cluster.store.leader()
    followers = [member for member in cluster.store.members if member is not leader]
    return _lose_store(cluster, followers[0] if followers else cluster.store.members[0])


def _etcd_leader_killed(cluster: Cluster) -> Undo:
    leader = cluster.store.leader()
    if leader is None:
        raise DrillError("etcd has no leader")
    return _lose_store(cluster, leader)


def _lose_store(cluster: Cluster, member: StoreMember) -> Undo:
    cluster.store.kill_member(member)

    def undo() -> None:
        cluster.store.start_member(member)
        cluster.store.wait_until_healthy(30.0)

    return undo


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("switchover", "planned switchover", _switchover, moves_leader=True),
        Fault("postgres-killed", "postmaster of the primary killed", _postgres_killed, moves_leader=True),
        Fault(
            "postgres-tree-killed",
            "every postgres process of the primary killed",
            _postgres_tree_killed,
            moves_leader=True,
        ),
        Fault(
            "agent-killed",
            "agent of the primary killed, postgres alive",
            _agent_killed,
            moves_leader=False,
            hold_ttls=1.5,
        ),
        Fault(
            "agent-replaced",
            "agent of the primary replaced (SIGUSR2)",
            _agent_replaced,
            moves_leader=False,
            hold_ttls=1.5,
        ),
        Fault(
            "agent-frozen",
            "agent of the primary frozen (SIGSTOP)",
            _agent_frozen,
            moves_leader=False,
            hold_ttls=1.5,
        ),
        Fault(
            "guard-killed",
            "guard of the primary killed, started again at once",
            _guard_killed,
            moves_leader=False,
            hold_ttls=1.5,
        ),
        Fault(
            "control-killed",
            "agent and guard of the primary killed together, started again after a second",
            _control_killed,
            moves_leader=False,
            hold_ttls=1.5,
        ),
        Fault(
            "member-lost",
            "guard, agent and postgres of the primary killed together",
            _member_lost,
            moves_leader=True,
        ),
        Fault(
            "host-lost",
            "host of the primary loses power and network",
            _host_lost,
            moves_leader=True,
            needs_netns=True,
        ),
        Fault("replica-lost", "a replica's member killed", _replica_lost, moves_leader=False, hold_ttls=1.5),
        Fault(
            "etcd-member-killed",
            "an etcd follower killed",
            _etcd_member_killed,
            moves_leader=False,
            hold_ttls=1.5,
        ),
        Fault(
            "etcd-leader-killed",
            "the etcd leader killed",
            _etcd_leader_killed,
            moves_leader=False,
            hold_ttls=1.5,
        ),
    )
}
"""By name, in the order in which a drill of everything goes through them."""
