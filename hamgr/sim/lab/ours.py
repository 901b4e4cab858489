"""hamgr in the lab: the real core of every member, in the simulator that tests it, behind the lab's interface."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from hamgr.core.policy import Policy
from hamgr.sim.lab.cluster import Copy, OnNotice
from hamgr.sim.lab.field import Setting
from hamgr.sim.lab.network import LabNetwork
from hamgr.sim.lab.writers import EVERY_S, WRITE_BYTES
from hamgr.sim.postgres import Server
from hamgr.sim.wal import Commit
from hamgr.sim.world import World


class OurCluster:
    """A Cluster. Nothing of the protocol is here: faults and questions are passed on to the World."""

    def __init__(self, dice: random.Random, setting: Setting, policy: Policy) -> None:
        self.world = World(policy, pace=setting.pace, dice=dice, is_supervised=True)
        self.ground = self.world.ground
        self.network = LabNetwork(dice, setting.pace)
        self.ground.network = self.network
        self.names = setting.names
        self.on_notice: OnNotice = _nothing
        self._clocks = setting.clocks(dice)
        self._policy = policy
        self.world.clients.every_s = EVERY_S
        self.world.clients.sizes = (WRITE_BYTES, WRITE_BYTES)
        self.world.etcd.before_write.append(self._look_for_vacancy)

    def begin(self) -> None:
        self.world.set_policy(self._policy)
        for name, clock in zip(self.names, self._clocks, strict=True):
            self.world.add(name, clock=clock)
        self.world.clients.begin()

    def is_ready(self) -> bool:
        leader = self.world.leader()
        if self.accepting() != (leader,):
            return False
        sync = self.world.etcd.get("sync")
        is_guarded = self._policy.synchronous_mode == "off" or (sync is not None and bool(sync.members))
        others = (server for name, server in self.world.servers.items() if name != leader)
        return is_guarded and all(each.streaming and each.upstream.startswith(f"{leader}.") for each in others)

    def accepting(self) -> tuple[str, ...]:
        return tuple(
            name
            for name, server in self.world.servers.items()
            if server.may_acknowledge and self._would_release(server)
        )

    @staticmethod
    def _would_release(server: Server) -> bool:
        """The synchronous rule in force could be met by the standbys that are connected."""
        rule = server.sync
        return not rule.count or sum(name in server.flushed for name in rule.names) >= rule.count

    def copies(self) -> Mapping[str, Copy]:
        return self.world.servers

    def acknowledged(self) -> Sequence[Commit]:
        return [each.commit for each in self.world.clients.acknowledged if each.commit is not None]

    # -- faults ------------------------------------------------------------------------------------------------

    def lose(self, name: str) -> None:
        self.world.lose_host(name)

    def bring_back(self, name: str) -> None:
        self.world.hosts[name].begin()

    def freeze_agent(self, name: str) -> None:
        self.world.hosts[name].freeze_agent()

    def thaw_agent(self, name: str) -> None:
        self.world.hosts[name].thaw_all()

    def suspend(self, name: str) -> None:
        self.world.clients.leave_in_flight(self.world.servers[name])
        self.world.hosts[name].suspend()

    def resume(self, name: str) -> None:
        self.world.hosts[name].resume()

    def cuts_changed(self) -> None:
        self.world.shared.replication.look_at_cuts()

    # -- what is counted ---------------------------------------------------------------------------------------

    def _look_for_vacancy(self, puts: Mapping[str, tuple[object, int]], gone: tuple[str, ...]) -> None:
        """The leader key goes, or the lead is offered."""
        if "leader" in gone or ("failover" in puts and "term" not in puts):
            self.on_notice()


def _nothing() -> None:
    return None
