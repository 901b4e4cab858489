"""What a fault is: a name, a sentence, and `arm(victims) -> undo`; and how faults are put together.

`arm` does the harm and returns; `undo` takes it back (a killed member starts again) once the fault has been held
for its time. Where everything comes back by itself, `undo` is `nothing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hamgr.drill.base_cluster import BaseCluster
from hamgr.drill.base_member import BaseMember
from hamgr.drill.errors import DrillError
from hamgr.drill.plan import Place

Undo = Callable[[], None]

PRIMARY = frozenset({"primary"})
REPLICA = frozenset({"replica"})
STORE = frozenset({"store"})
PEERS = frozenset({"peers"})
"""What members say to each other. Without that and without etcd nobody may lead."""
MACHINE = frozenset({"machine"})
POOLER = frozenset({"pooler"})
"""HAProxy and PgBouncer."""
NOBODY: frozenset[str] = frozenset()

ANYWHERE = frozenset(Place)
OWN_NETWORK = frozenset({Place.NETNS, Place.COMPOSE})
"""Each host has an address and a cable of its own."""
ON_THIS_MACHINE = frozenset({Place.LOOPBACK, Place.NETNS})
"""Guard and server are processes that do not end with each other."""
NETNS_ONLY = frozenset({Place.NETNS})
COMPOSE_ONLY = frozenset({Place.COMPOSE})

_NEXT_LEADER_TIMEOUT_S = 30.0
"""Beyond the lease."""


@dataclass(frozen=True, slots=True)
class Victims:
    """Who is who when a fault strikes: chosen before the first harm, after which nobody could tell any more."""

    cluster: BaseCluster
    primary: BaseMember
    replicas: tuple[BaseMember, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table. The fault stays armed for at least hold_s + hold_ttls * ttl.

    That long, because some harm shows only when a lease has run out.
    """

    name: str
    title: str
    arm: Callable[[Victims], Undo]
    moves_leader: bool | None
    """Whether somebody else must lead afterwards (True), nobody else may (False), or either is fine (None)."""
    harms: frozenset[str]
    """Whom it is aimed at; two faults at once are drawn with different aims."""
    takes: frozenset[str] = NOBODY
    """Who is of no use to the cluster as long as it lasts."""
    hold_s: float = 0.5
    hold_ttls: float = 0.0
    places: frozenset[Place] = ANYWHERE
    """Where it can be drilled."""
    needs_disks: bool = False
    needs_clocks: bool = False
    weight: int = 10
    """How often the random choice takes it, relative to the others."""
    strikes_again: bool = True
    """Another server is primary afterwards, so that the same can happen to that one."""
    is_survivable: bool = True
    """Whether, in asynchronous mode, the cluster must be writable before the fault is undone."""
    most_changes: int = 1
    """Changes of leader that it may cause, unless it may cause none at all."""

    @property
    def changes_allowed(self) -> int:
        return 0 if self.moves_leader is False else self.most_changes

    def hold_time_s(self, ttl_s: float) -> float:
        return self.hold_s + self.hold_ttls * ttl_s

    def may_stop_writes(self, *, synchronous: bool) -> bool:
        """Whether no manager could keep the cluster writable while it lasts.

        Without etcd nobody can be elected, and in synchronous mode the last of three members may not be.
        """
        alone = self.takes >= PRIMARY | REPLICA
        return self.takes >= (PRIMARY | STORE) or self.takes >= (PEERS | STORE) or (synchronous and alone)


def nothing() -> None:
    """Undo of a fault after which everything comes back by itself."""


def all_of(undos: Sequence[Undo]) -> Undo:
    """One undo that takes back the last harm first, each of them even if another fails."""
    real = [undo for undo in undos if undo is not nothing]
    return (lambda: _undo(real)) if real else nothing


def _undo(undos: Sequence[Undo]) -> None:
    if undos:
        try:
            undos[-1]()
        finally:
            _undo(undos[:-1])


def at_once(faults: Sequence[Fault]) -> Fault:
    """All of the faults together, armed in their order. Raises nothing; a part that cannot be armed undoes the rest."""

    def arm(victims: Victims) -> Undo:
        undos: list[Undo] = []
        try:
            for fault in faults:
                undos.append(fault.arm(victims))
        except BaseException:
            all_of(undos)()
            raise
        return all_of(undos)

    moves = [fault.moves_leader for fault in faults]
    takes = NOBODY.union(*(fault.takes for fault in faults))
    if takes >= PEERS | STORE:
        # A leader that may not go on is free to be followed by another, once that is possible again.
        moves.append(None)
    return Fault(
        name="+".join(fault.name for fault in faults),
        title=" and, at the same time, ".join(fault.title for fault in faults),
        arm=arm,
        moves_leader=True if True in moves else None if None in moves else False,
        harms=NOBODY.union(*(fault.harms for fault in faults)),
        takes=takes,
        hold_s=max(fault.hold_s for fault in faults),
        hold_ttls=max(fault.hold_ttls for fault in faults),
        places=ANYWHERE.intersection(*(fault.places for fault in faults)),
        needs_disks=any(fault.needs_disks for fault in faults),
        needs_clocks=any(fault.needs_clocks for fault in faults),
        weight=min(fault.weight for fault in faults),
        is_survivable=all(fault.is_survivable for fault in faults),
        most_changes=max(1, sum(fault.changes_allowed for fault in faults)),
    )


def again(fault: Fault) -> Fault:
    """The fault, and the same on the next primary as soon as that one is writable.

    Where it takes the primary, the last member may never have heard of the second one's timeline: it may take the
    lead and lose what that one acknowledged, or wait for it. Either is fine.
    """

    def arm(victims: Victims) -> Undo:
        former_pid = victims.primary.postmaster_pid()
        undos = [fault.arm(victims)]
        try:
            undos.append(fault.arm(_next_victims(victims, former_pid)))
        except BaseException:
            all_of(undos)()
            raise
        return all_of(undos)

    takes_primary = fault.takes >= PRIMARY
    return replace(
        fault,
        name=f"again:{fault.name}",
        title=f"{fault.title}; the same on the next primary at once",
        arm=arm,
        takes=fault.takes | REPLICA if takes_primary else fault.takes,
        is_survivable=not takes_primary,
        most_changes=2 * fault.most_changes,
        weight=max(1, fault.weight // 5),
    )


def _next_victims(victims: Victims, former_pid: int) -> Victims:
    """Who is who once another server than that of `former_pid` is primary by REST. Raises DrillError if none comes."""
    members = (*victims.replicas, victims.primary)
    deadline = time.monotonic() + victims.cluster.plan.ttl_s + _NEXT_LEADER_TIMEOUT_S
    while time.monotonic() < deadline:
        for member in members:
            if member.is_leader() and not _is_server(member, former_pid):
                others = tuple(other for other in members if other is not member)
                return Victims(victims.cluster, member, others)
        time.sleep(0.01)
    raise DrillError("no other server became primary, so that the fault cannot strike again")


def _is_server(member: BaseMember, pid: int) -> bool:
    try:
        return member.postmaster_pid() == pid
    except DrillError:
        return False
