"""Faults of processes: agent, guard and servers that die or stand still."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from hamgr.drill.base_cluster import BaseCluster
from hamgr.drill.base_member import BaseMember
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import ON_THIS_MACHINE, PRIMARY, REPLICA, Fault, Undo, Victims, nothing
from hamgr.drill.freezing import freeze, freeze_tree, title_of
from hamgr.drill.subreaper import descendants

_SWITCHOVER_TIMEOUT_S = 60.0
_SERVICE_MANAGER_S = 1.0


def _switchover(victims: Victims) -> Undo:
    leader = victims.primary
    answer = leader.order("POST", "/switchover", {"leader": leader.name}, _SWITCHOVER_TIMEOUT_S)
    if answer.status_code >= 300:
        raise DrillError(f"{leader.name} refused the switchover: {answer.status_code} {answer.text}")
    return nothing


def _postgres_killed(victims: Victims) -> Undo:
    os.kill(victims.primary.postmaster_pid(), signal.SIGKILL)
    return nothing


def _postgres_tree_killed(victims: Victims) -> Undo:
    postmaster = victims.primary.postmaster_pid()
    for pid in [postmaster, *descendants(postmaster)]:
        _kill(pid)
    return nothing


def _postgres_hung(victims: Victims) -> Undo:
    return freeze_tree(victims.primary.postmaster_pid())


def _postmaster_hung(victims: Victims) -> Undo:
    """Sessions that exist go on; nobody new gets in."""
    return freeze([victims.primary.postmaster_pid()])


def _agent_killed(victims: Victims) -> Undo:
    _kill(victims.primary.agent_pid())
    return nothing


def _agent_replaced(victims: Victims) -> Undo:
    os.kill(victims.primary.guard_pid(), signal.SIGUSR2)
    return nothing


def _agent_frozen(victims: Victims) -> Undo:
    """Thawed by nobody: the guard kills what does not beat, and starts another."""
    os.kill(victims.primary.agent_pid(), signal.SIGSTOP)
    return nothing


def _guard_killed(victims: Victims) -> Undo:
    """The guard alone, started again as a service manager does."""
    member = victims.primary
    _kill(member.guard_pid())
    member.wait_until_guard_ended()
    victims.cluster.start_member(member)
    return nothing


def _guard_gone(victims: Victims) -> Undo:
    """The guard alone, with no service manager that would start it again."""
    _kill(victims.primary.guard_pid())
    return lambda: victims.cluster.ensure_started(victims.primary)


def _guard_frozen(victims: Victims) -> Undo:
    thaw = freeze([victims.primary.guard_pid()])

    def undo() -> None:
        thaw()
        victims.cluster.ensure_started(victims.primary)

    return undo


def _control_killed(victims: Victims) -> Undo:
    """Agent and guard together, started again after a second; the server lives on meanwhile."""
    _kill_control(victims.primary)
    time.sleep(_SERVICE_MANAGER_S)
    victims.cluster.start_member(victims.primary)
    return nothing


def _both_gone(victims: Victims) -> Undo:
    """Agent and guard together, and nobody starts them: only what lives in the server itself can end it."""
    _kill_control(victims.primary)
    return lambda: victims.cluster.ensure_started(victims.primary)


def _kill_control(member: BaseMember) -> None:
    both = [member.guard_pid(), member.agent_pid()]
    # Standing still first: whichever lived a moment longer would start the other again.
    freeze(both)
    for pid in both:
        _kill(pid)
    member.wait_until_guard_ended()


def _member_lost(victims: Victims) -> Undo:
    return _lose(victims.cluster, victims.primary)


def _replica_lost(victims: Victims) -> Undo:
    return _lose(victims.cluster, victims.replicas[0])


def _lose(cluster: BaseCluster, member: BaseMember) -> Undo:
    """Guard, agent and server at once, as by a power cut; the kernel still closes their connections."""
    member.host.kill_all()
    return lambda: cluster.start_member(member)


def _host_frozen(victims: Victims) -> Undo:
    """As a virtual machine that is paused and goes on later."""
    victims.primary.host.freeze_all()
    return victims.primary.host.thaw_all


def _replica_lagging(victims: Victims) -> Undo:
    """The first replica's WAL receiver stands still: it neither receives nor confirms."""
    postmaster = victims.replicas[0].postmaster_pid()
    receivers = [pid for pid in descendants(postmaster) if " walreceiver " in title_of(pid)]
    if not receivers:
        raise DrillError(f"{victims.replicas[0].name} has no WAL receiver")
    return freeze(receivers)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


PROCESS_FAULTS = (
    # Not again at once: with synchronous mode nobody can follow a new leader before a standby has caught up with it.
    Fault("switchover", "planned switchover", _switchover, True, PRIMARY, strikes_again=False),
    Fault("postgres-killed", "postmaster of the primary killed", _postgres_killed, None, PRIMARY),
    Fault(
        "postgres-tree-killed",
        "every postgres process of the primary killed",
        _postgres_tree_killed,
        None,
        PRIMARY,
    ),
    Fault(
        "postgres-hung",
        "every postgres process of the primary frozen",
        _postgres_hung,
        None,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
    ),
    Fault(
        "postmaster-hung",
        "postmaster of the primary frozen: old sessions live, new ones get no answer",
        _postmaster_hung,
        None,
        PRIMARY,
        takes=PRIMARY,
        hold_s=5.0,
        hold_ttls=1.5,
    ),
    Fault("agent-killed", "agent of the primary killed, postgres alive", _agent_killed, False, PRIMARY, hold_ttls=1.5),
    Fault("agent-replaced", "agent of the primary replaced (SIGUSR2)", _agent_replaced, False, PRIMARY, hold_ttls=1.5),
    Fault("agent-frozen", "agent of the primary frozen (SIGSTOP)", _agent_frozen, False, PRIMARY, hold_ttls=1.5),
    Fault(
        "guard-killed",
        "guard of the primary killed, started again at once",
        _guard_killed,
        False,
        PRIMARY,
        hold_ttls=1.5,
        places=ON_THIS_MACHINE,
    ),
    Fault(
        "guard-gone",
        "guard of the primary killed, not started again by anybody outside",
        _guard_gone,
        None,
        PRIMARY,
        hold_ttls=1.5,
        strikes_again=False,
        places=ON_THIS_MACHINE,
    ),
    Fault(
        "guard-frozen",
        "guard of the primary frozen (SIGSTOP)",
        _guard_frozen,
        False,
        PRIMARY,
        hold_ttls=1.5,
        places=ON_THIS_MACHINE,
    ),
    Fault(
        "control-killed",
        "agent and guard of the primary killed together, started again after a second",
        _control_killed,
        False,
        PRIMARY,
        hold_ttls=1.5,
        places=ON_THIS_MACHINE,
    ),
    Fault(
        "both-gone",
        "agent and guard of the primary killed together and not started again",
        _both_gone,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=ON_THIS_MACHINE,
    ),
    Fault(
        "member-lost",
        "guard, agent and postgres of the primary killed together",
        _member_lost,
        True,
        PRIMARY,
        takes=PRIMARY,
    ),
    Fault(
        "host-frozen",
        "host of the primary stands still, with all that runs there, and goes on later",
        _host_frozen,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_s=3.0,
        hold_ttls=1.0,
    ),
    Fault("replica-lost", "a replica's member killed", _replica_lost, False, REPLICA, takes=REPLICA, hold_ttls=1.5),
    Fault(
        "replica-lagging",
        "a replica's WAL receiver stands still",
        _replica_lagging,
        False,
        REPLICA,
        takes=REPLICA,
        hold_ttls=1.5,
    ),
)
