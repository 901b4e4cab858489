"""What strikes a cluster in the lab, the same for every protocol. Each fault returns what ends it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hamgr.sim.lab.cluster import CLIENTS, Cluster
from hamgr.sim.network import ETCD

SLOW_S = (0.05, 0.5)
"""How much later everything from and to a slow member is, each message by an amount of its own."""
LOSS = 0.2
"""Of packets."""
FLAP_DOWN_S, FLAP_UP_S, FLAPS = 3.0, 6.0, 5
DRIFT = 0.02
"""Clocks that are wrong by up to so much: 40 times as much as NTP corrects (500 ppm), 4 times hamgr's allowance."""

Heal = Callable[[], None]
Strike = Callable[[Cluster, random.Random, str], Heal]


@dataclass(frozen=True, slots=True)
class LabFault:
    """`blocks_all`: nobody can lead before it has ended, and time counts from there. `drift`: of members' clocks."""

    key: str
    title: str
    strike: Strike
    blocks_all: bool = False
    drift: float = 0.0


def crash(cluster: Cluster, _dice: random.Random, leader: str) -> Heal:
    cluster.lose(leader)
    return lambda: cluster.bring_back(leader)


def freeze_agent(cluster: Cluster, _dice: random.Random, leader: str) -> Heal:
    cluster.freeze_agent(leader)
    return lambda: cluster.thaw_agent(leader)


def freeze_host(cluster: Cluster, _dice: random.Random, leader: str) -> Heal:
    cluster.suspend(leader)
    return lambda: cluster.resume(leader)


def cut_leader(cluster: Cluster, dice: random.Random, leader: str) -> Heal:
    """The leader, and with it as many as leave a majority on the other side. Clients are with the majority, but for
    those beside each member.
    """
    return _separate(cluster, _minority(cluster, dice, leader, with_leader=True))


def cut_followers(cluster: Cluster, dice: random.Random, leader: str) -> Heal:
    return _separate(cluster, _minority(cluster, dice, leader, with_leader=False))


def cut_all(cluster: Cluster, _dice: random.Random, _leader: str) -> Heal:
    """Nobody reaches another member, or the store. Clients reach everybody."""
    pairs = [(one, other) for one in cluster.names for other in cluster.names if one < other]
    return _cut(cluster, [*pairs, *((name, ETCD) for name in cluster.names)])


def mute(cluster: Cluster, _dice: random.Random, leader: str) -> Heal:
    """What the leader sends does not arrive anywhere."""
    return _cut_one_way(cluster, leader, [(leader, other) for other in _around(cluster, leader)])


def deaf(cluster: Cluster, _dice: random.Random, leader: str) -> Heal:
    """Nothing arrives at the leader."""
    return _cut_one_way(cluster, leader, [(other, leader) for other in _around(cluster, leader)])


def slow_leader(cluster: Cluster, _dice: random.Random, leader: str) -> Heal:
    cluster.network.slower_s[leader] = SLOW_S
    return lambda: cluster.network.heal()


def slow_follower(cluster: Cluster, dice: random.Random, leader: str) -> Heal:
    cluster.network.slower_s[dice.choice(_others(cluster, leader))] = SLOW_S
    return lambda: cluster.network.heal()


def flapping(cluster: Cluster, _dice: random.Random, _leader: str) -> Heal:
    """The member with the highest id goes down and comes back, again and again."""
    name, ground = cluster.names[-1], cluster.ground
    cluster.lose(name)
    ground.at(ground.now + FLAP_DOWN_S, lambda: cluster.bring_back(name))
    for number in range(1, FLAPS):
        down_at = ground.now + number * (FLAP_DOWN_S + FLAP_UP_S)
        ground.at(down_at, lambda: cluster.lose(name))
        ground.at(down_at + FLAP_DOWN_S, lambda: cluster.bring_back(name))
    return lambda: cluster.bring_back(name)


def lose_messages(cluster: Cluster, _dice: random.Random, _leader: str) -> Heal:
    cluster.network.packet_loss = LOSS
    return lambda: cluster.network.heal()


def _others(cluster: Cluster, leader: str) -> list[str]:
    return [name for name in cluster.names if name != leader]


def _around(cluster: Cluster, leader: str) -> list[str]:
    return [*_others(cluster, leader), ETCD]


def _minority(cluster: Cluster, dice: random.Random, leader: str, *, with_leader: bool) -> list[str]:
    """As many as can be cut off while more than half of the members stay together."""
    count, others = (len(cluster.names) - 1) // 2, _others(cluster, leader)
    return [leader, *dice.sample(others, count - 1)] if with_leader else dice.sample(others, count)


def _separate(cluster: Cluster, group: list[str]) -> Heal:
    rest = [name for name in cluster.names if name not in group]
    return _cut(cluster, [(one, other) for one in group for other in (*rest, ETCD, CLIENTS)])


def _cut(cluster: Cluster, pairs: Iterable[tuple[str, str]]) -> Heal:
    for one, other in pairs:
        cluster.network.cut(one, other)
    cluster.cuts_changed()
    return _mended(cluster)


def _cut_one_way(cluster: Cluster, leader: str, pairs: Iterable[tuple[str, str]]) -> Heal:
    for source, target in pairs:
        cluster.network.cut(source, target, both_ways=False)
    cluster.network.cut(leader, CLIENTS)
    cluster.cuts_changed()
    return _mended(cluster)


def _mended(cluster: Cluster) -> Heal:
    def heal() -> None:
        cluster.network.heal()
        cluster.cuts_changed()

    return heal


FAULTS: tuple[LabFault, ...] = (
    LabFault("crash", "leader's host lost", crash),
    LabFault("freeze-agent", "leader's agent frozen, server alive", freeze_agent),
    LabFault("freeze-host", "leader's host frozen, thawed", freeze_host),
    LabFault("cut-leader", "leader cut off with a minority", cut_leader),
    LabFault("cut-followers", "a minority without the leader cut off", cut_followers),
    LabFault("cut-all", "everybody cut off from everybody", cut_all, blocks_all=True),
    LabFault("mute", "what the leader sends is lost", mute),
    LabFault("deaf", "what is sent to the leader is lost", deaf),
    LabFault("slow-leader", "leader slow by 50-500 ms", slow_leader),
    LabFault("slow-follower", "a follower slow by 50-500 ms", slow_follower),
    LabFault("flapping", "highest id down 3 s, up 6 s, 5 times", flapping),
    LabFault("loss", "one packet in five lost", lose_messages),
    LabFault("drift", "clocks 2 % off, leader cut off", cut_leader, drift=DRIFT),
)
BY_KEY = {fault.key: fault for fault in FAULTS}
