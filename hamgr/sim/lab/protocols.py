"""The protocols of the lab: name, source, known weaknesses, and how a cluster of each is built."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from hamgr.core.policy import Policy
from hamgr.sim.clock import HostClock
from hamgr.sim.lab.bully import BullyNode
from hamgr.sim.lab.cluster import Cluster
from hamgr.sim.lab.field import Field, MakeNode, Node, Setting
from hamgr.sim.lab.ours import OurCluster
from hamgr.sim.lab.polling import PollingNode, PollingSetting, keep_expiring
from hamgr.sim.lab.raft import RaftNode, RaftSetting
from hamgr.sim.lab.trial import Build
from hamgr.sim.lab.zookeeper import Ensemble, ZooKeeperNode, ZooKeeperSetting
from hamgr.sim.pace import AT_ONCE


@dataclass(frozen=True, slots=True)
class Protocol:
    """`is_synchronous`: a write is acknowledged only once it is on more than one member."""

    key: str
    title: str
    source: str
    weaknesses: tuple[str, ...]
    build: Build
    is_synchronous: bool = False


def bully(dice: random.Random, setting: Setting) -> Cluster:
    return Field(dice, setting, BullyNode)


def raft(setting: RaftSetting) -> Build:
    """Raft's election for a database beside it that replicates asynchronously."""

    def build(dice: random.Random, where: Setting) -> Cluster:
        return Field(dice, where, raft_node(setting))

    return build


def whole_raft(dice: random.Random, setting: Setting) -> Cluster:
    """Member and state machine are one process; a write is acknowledged by a majority; leading needs no promotion."""
    pace = replace(setting.pace, promote=AT_ONCE, stop=AT_ONCE, rewind=AT_ONCE)
    make = raft_node(RaftSetting(pre_vote=True, checks_quorum=True))
    return Field(dice, replace(setting, pace=pace), make, is_embedded=True, quorum=setting.members // 2 + 1)


def raft_node(setting: RaftSetting) -> MakeNode:
    """Members with those timings."""
    return lambda field, name, rank, clock: RaftNode(field, name, rank, clock, setting)


def zookeeper(setting: ZooKeeperSetting) -> Build:
    def build(dice: random.Random, where: Setting) -> Cluster:
        ensembles: list[Ensemble] = []

        def make(field: Field, name: str, rank: int, clock: HostClock) -> Node:
            if not ensembles:
                ensembles.append(Ensemble(field.ground, setting, lambda: field.on_notice()))
            return ZooKeeperNode(field, name, rank, clock, ensembles[0], setting)

        return Field(dice, where, make)

    return build


def polling(setting: PollingSetting) -> Build:
    def build(dice: random.Random, where: Setting) -> Cluster:
        def make(field: Field, name: str, rank: int, clock: HostClock) -> Node:
            return PollingNode(field, name, rank, clock, setting)

        cluster = Field(dice, where, make)
        keep_expiring(cluster.ground)
        cluster.ground.etcd.before_write.append(lambda _puts, gone: cluster.on_notice() if "leader" in gone else None)
        return cluster

    return build


def hamgr(policy: Policy) -> Build:
    return lambda dice, setting: OurCluster(dice, setting, policy)


ACM = "H. Garcia-Molina, Elections in a Distributed Computing System, IEEE Trans. Computers C-31 (1982)"
ATC = "D. Ongaro, J. Ousterhout, In Search of an Understandable Consensus Algorithm, USENIX ATC 2014, §5.2, §5.4"
THESIS = "D. Ongaro, Consensus: Bridging Theory and Practice, Stanford 2014, §6.2, §9.6"
RECIPES = "ZooKeeper Recipes and Solutions, Leader Election"
PATRONI = "Patroni, ha.py and dcs/etcd3.py, 2026-07"

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        "bully",
        "Bully",
        ACM,
        (
            "each side of a partition has a leader of its own",
            "the highest id wins, whatever data it has",
            "a high id that flaps takes the lead again each time",
        ),
        bully,
    ),
    Protocol(
        "raft",
        "Raft election",
        ATC,
        (
            "two candidates may split the votes, again and again where their timeouts are alike",
            "a member that hears nobody raises its term and unseats a good leader when it is back",
            "a leader without a majority goes on for a database that does not ask it for each commit",
        ),
        raft(RaftSetting()),
    ),
    Protocol(
        "raft-prevote",
        "Raft election with pre-vote and quorum check",
        THESIS,
        ("a leader that is frozen or cut off goes on until it notices: the election gives no bound to rely on",),
        raft(RaftSetting(pre_vote=True, checks_quorum=True)),
    ),
    Protocol(
        "raft-whole",
        "Raft as a whole: commits by majority",
        f"{ATC}; {THESIS}",
        ("every commit waits for a majority", "the database has to be built on it: PostgreSQL is not"),
        whole_raft,
        is_synchronous=True,
    ),
    Protocol(
        "zookeeper",
        "ZooKeeper recipe, to the letter",
        RECIPES,
        (
            "who joined first wins, whatever data it has",
            "a leader that is cut off learns that its session has ended only when it is back",
        ),
        zookeeper(ZooKeeperSetting()),
    ),
    Protocol(
        "zookeeper-latch",
        "ZooKeeper recipe, steps down when disconnected",
        f"{RECIPES}; Apache Curator, LeaderLatch and ConnectionStateListener",
        ("who joined first wins, whatever data it has", "an agent that is frozen does not step down"),
        zookeeper(ZooKeeperSetting(steps_down=True)),
    ),
    Protocol(
        "polling",
        "Lease with polling, ttl 30, loop_wait 10",
        PATRONI,
        (
            "nothing ends a server whose agent is frozen or dead",
            "the gap is the lease, and two seconds of waiting for the dead on top",
            "the race compares positions that were polled before it",
        ),
        polling(PollingSetting()),
    ),
    Protocol(
        "polling-tight",
        "Lease with polling, ttl 20, loop_wait 1",
        PATRONI,
        ("as above, at the tightest timings that it accepts",),
        polling(PollingSetting(20.0, 1.0, 3.0)),
    ),
    Protocol(
        "hamgr",
        "hamgr, ttl 5, asynchronous",
        "this project's core",
        (
            "the gap of a lost host is the lease: ttl, where a quorum of voters needs a third of a second",
            "every ballot is seen by every member: messages grow faster than the members",
            "it needs etcd beside it",
        ),
        hamgr(Policy()),
    ),
    Protocol(
        "hamgr-quorum",
        "hamgr, ttl 5, synchronous_mode: quorum",
        "this project's core",
        ("as above, and every commit waits for a standby",),
        hamgr(Policy(synchronous_mode="quorum")),
        is_synchronous=True,
    ),
)
BY_KEY = {protocol.key: protocol for protocol in PROTOCOLS}
