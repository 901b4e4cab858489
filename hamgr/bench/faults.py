"""The faults of the benchmark: they act on hosts, processes and networks, the same for every manager."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hamgr.bench.managers.manager import Node, Undo
from hamgr.bench.stage import Stage
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import nothing
from hamgr.drill.freezing import freeze, freeze_tree


@dataclass(frozen=True, slots=True)
class Victims:
    """Who is who when a fault strikes."""

    stage: Stage
    primary: Node
    replicas: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    It is held for `hold_s`, and then until writes flow again, but not longer than `longest_s` altogether: then it is
    undone.
    """

    name: str
    title: str
    arm: Callable[[Victims], Undo]
    hold_s: float
    longest_s: float
    alone: bool
    """Whether its figures are so short that no other cluster may run beside."""
    disks: bool = False
    """Whether it needs disks of the nodes' own."""


def _switchover(victims: Victims) -> Undo:
    victims.stage.manager.switch_over(victims.primary)
    return nothing


def _postgres_killed(victims: Victims) -> Undo:
    os.kill(victims.primary.postmaster_pid(), signal.SIGKILL)
    return nothing


def _postgres_hung(victims: Victims) -> Undo:
    return freeze_tree(victims.primary.postmaster_pid())


def _agent_killed(victims: Victims) -> Undo:
    _kill(victims.primary.agent_pids())
    return victims.primary.ensure_started


def _agent_frozen(victims: Victims) -> Undo:
    return freeze(victims.primary.agent_pids())


def _manager_killed(victims: Victims) -> Undo:
    pids = victims.primary.manager_pids()
    # Standing still first: whichever lived a moment longer would start the others again.
    freeze(pids)
    _kill(pids)
    return victims.primary.ensure_started


def _host_lost(victims: Victims) -> Undo:
    return _lose(victims.stage, victims.primary)


def _replica_lost(victims: Victims) -> Undo:
    return _lose(victims.stage, victims.replicas[0])


def _lose(stage: Stage, node: Node) -> Undo:
    """Power cut of a machine: no packet tells anybody. Comes back with its cable in, and everything starts."""
    stage.network.cut(node.host)
    node.host.kill_all()

    def undo() -> None:
        stage.network.mend(node.host)
        node.start()

    return undo


def _isolated(victims: Victims) -> Undo:
    primary = victims.primary.host
    others = [*victims.stage.manager.authority.hosts, *(node.host for node in victims.replicas)]
    both_ways = [*((primary, other) for other in others), *((other, primary) for other in others)]
    return victims.stage.network.drop(both_ways)


def _authority_frozen(victims: Victims) -> Undo:
    return victims.stage.manager.authority.freeze()


def _authority_leader_killed(victims: Victims) -> Undo:
    return victims.stage.manager.authority.kill_leader()


def _disk_full(victims: Victims) -> Undo:
    disk = victims.primary.disk
    if disk is None:
        raise DrillError("this fault needs disks of the nodes' own")
    return disk.fill()


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("switchover", "planned switchover", _switchover, 1.0, 60.0, True),
        Fault("postgres-killed", "postgres killed on a live host", _postgres_killed, 1.0, 90.0, True),
        Fault("host-lost", "host of the primary lost", _host_lost, 1.0, 120.0, False),
        Fault("agent-killed", "agent SIGKILLed, postgres alive, 60 s", _agent_killed, 60.0, 60.0, False),
        Fault(
            "manager-killed",
            "all processes of the manager on the primary's host SIGKILLed, postgres alive, 60 s",
            _manager_killed,
            60.0,
            60.0,
            False,
        ),
        Fault("agent-frozen", "agent frozen (SIGSTOP) 60 s", _agent_frozen, 60.0, 60.0, False),
        Fault(
            "isolated",
            "primary cut off from etcd and peers, clients still reach it, at least 60 s",
            _isolated,
            60.0,
            120.0,
            False,
        ),
        Fault("etcd-unresponsive", "etcd wholly unresponsive 45 s", _authority_frozen, 45.0, 45.0, False),
        Fault("postgres-hung", "postgres hung (SIGSTOP) 60 s", _postgres_hung, 60.0, 60.0, False),
        Fault("etcd-leader-killed", "etcd leader killed, back after 15 s", _authority_leader_killed, 15.0, 15.0, True),
        Fault("replica-lost", "host of a replica lost, back after 35 s", _replica_lost, 35.0, 35.0, True),
        Fault("disk-full", "disk of the primary full, 60 s", _disk_full, 60.0, 60.0, False, disks=True),
    )
}
"""By name, in the order of the tables."""
