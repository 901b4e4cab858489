"""The world: hosts with the real core, an etcd, servers and a network in memory, in virtual time.

Nothing here is left to the clock or the hash seed of the machine that it runs on: the same seed is the same world.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from hamgr.core.cluster import Request, Tags
from hamgr.core.pipeline import Record
from hamgr.core.policy import Policy
from hamgr.sim import transactions
from hamgr.sim.agent import Agent, Shared, Upset
from hamgr.sim.checkers import Checkers
from hamgr.sim.client import Clients
from hamgr.sim.clock import HostClock
from hamgr.sim.etcd import Etcd
from hamgr.sim.ground import Ground
from hamgr.sim.host import Host
from hamgr.sim.mutants import Mutant
from hamgr.sim.network import ETCD
from hamgr.sim.pace import STILL, Pace
from hamgr.sim.peer_calls import PEER_CALLS
from hamgr.sim.postgres import Server, Written
from hamgr.sim.replication import Replication
from hamgr.sim.route_calls import ROUTE_CALLS
from hamgr.sim.server_calls import SERVER_CALLS
from hamgr.sim.steps import Steps
from hamgr.sim.store_calls import STORE_CALLS

CALLS: Mapping[type, Callable[[Agent, Any], Steps]] = {**SERVER_CALLS, **STORE_CALLS, **PEER_CALLS, **ROUTE_CALLS}


class World:
    """Members by name. `now` moves only in `run_until` and what rests on it."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        pace: Pace = STILL,
        dice: random.Random | None = None,
        mutant: Mutant = Mutant.NONE,
        is_supervised: bool = False,
    ) -> None:
        self.ground = Ground(dice or random.Random(0), pace, mutant)
        self.policy = policy or Policy()
        self.is_supervised = is_supervised
        self.hosts: dict[str, Host] = {}
        self.shared = Shared(Replication(self.ground))
        self.clients = Clients(self.ground, self.servers)
        self.checkers = Checkers(self.ground, self.shared, self.clients)
        self.shared.on_start = self.checkers.action_started
        self.shared.on_record = self.checkers.recorded
        self.shared.on_thaw = lambda server: self.ground.at(server.accepts_from, self.checkers.look_for_two)
        self.etcd.after_write.append(self._leases_changed)
        self._expiry_at = float("inf")
        self.phase = 0
        """Counts how often all faults were over."""

    # -- what is where -----------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.ground.now

    @property
    def etcd(self) -> Etcd:
        return self.ground.etcd

    @property
    def agents(self) -> dict[str, Agent]:
        return self.shared.agents

    @property
    def servers(self) -> dict[str, Server]:
        return self.shared.replication.servers

    @property
    def upsets(self) -> dict[tuple[str, str], Upset]:
        return self.shared.upsets

    @property
    def records(self) -> dict[int, Record]:
        return self.shared.records

    @property
    def refusals(self) -> list[str]:
        return self.shared.refusals

    @property
    def kept_aside(self) -> list[str]:
        return self.shared.kept_aside

    @property
    def guard_kills(self) -> list[str]:
        return [name for name, host in self.hosts.items() for _ in range(host.guard.kills)]

    # -- members -----------------------------------------------------------------------------------------------

    def add(self, name: str, tags: Tags | None = None, clock: HostClock | None = None) -> Agent:
        """One more member, on a host of its own, which is up."""
        host = Host(
            self.ground,
            self.shared,
            name,
            clock or HostClock(),
            self.policy,
            dict(CALLS),
            tags=tags,
            is_supervised=self.is_supervised,
        )
        self.hosts[name] = host
        host.server.on_ready = self._server_ready
        host.server.on_acknowledged = self._acknowledged
        host.begin()
        return host.agent

    def start_agent(self, name: str) -> None:
        """The service runs on that host again, and its agent is a fresh one."""
        host = self.hosts[name]
        host.agent.kill()
        host.begin()

    def stop_agent(self, name: str) -> None:
        """Its agent is killed."""
        self.hosts[name].kill_agent()

    def lose_host(self, name: str) -> None:
        """Power off."""
        self.hosts[name].lose()

    def crash_server(self, name: str) -> None:
        """No process of that server is left."""
        self.servers[name].stop(clean=False)

    def _server_ready(self, server: Server) -> None:
        if server.in_recovery:
            self.shared.replication.seek(server)
        else:
            self.shared.replication.spread(server)
            self.checkers.became_writable(server)

    def _acknowledged(self, written: Written) -> None:
        self.clients.acknowledge(written)
        self.checkers.acknowledged(written)

    # -- network and etcd --------------------------------------------------------------------------------------

    def cut_off(self, name: str) -> None:
        """That host does not reach etcd."""
        self.ground.network.cut(name, ETCD)

    def cut_from_peers(self, name: str) -> None:
        """That host and the other hosts do not reach each other."""
        for other in self.hosts:
            if other != name:
                self.ground.network.cut(name, other)
        self.shared.replication.look_at_cuts()

    def isolate(self, name: str) -> None:
        """That host reaches neither etcd nor any other host; the application still reaches it."""
        self.cut_off(name)
        self.cut_from_peers(name)

    def mend(self, name: str) -> None:
        """That host reaches everybody again."""
        for other in (ETCD, *self.hosts):
            self.ground.network.mend(name, other)

    def stop_etcd(self, *, refuses: bool = True) -> None:
        """etcd has no leader, or is gone: nothing is processed and no lease runs out."""
        self.etcd.answers, self.etcd.refuses = False, refuses

    def start_etcd(self) -> None:
        """etcd has a (new) leader: leases count afresh, what waited is carried out."""
        if self.etcd.answers:
            return
        self.etcd.answers = True
        self._expiry_at = float("inf")
        self.etcd.extend_all(self.now)
        waiting, self.etcd.waiting = self.etcd.waiting, []
        for do in waiting:
            do()
        self._leases_changed()

    def _leases_changed(self) -> None:
        """Look for expired leases when the first of them has run out, at etcd's own steps."""
        if not self.etcd.answers:
            return
        first = min((lease.expires_at for lease in self.etcd.leases.values()), default=float("inf"))
        step_s = self.ground.pace.expiry_step_s
        if step_s and first != float("inf"):
            first = (int(first / step_s) + 1) * step_s
        if first < self._expiry_at:
            self._expiry_at = first
            self.ground.at(first, self._expire)

    def _expire(self) -> None:
        """One of several that were asked for; only that of the earliest time looks."""
        if self.now < self._expiry_at:
            return
        self._expiry_at = float("inf")
        if self.etcd.answers:
            self.etcd.expire(self.now)
            self._leases_changed()

    @property
    def longest_ttl_s(self) -> float:
        """Of the leases that there are, and of those to come: another ttl takes effect as members come by."""
        return max([self.policy.ttl_s, *(lease.ttl_s for lease in self.etcd.leases.values())])

    def request(self, request: Request | None) -> None:
        """What an operator asks for stands in etcd; None: nothing does."""
        self.etcd.write({"failover": (request, 0)} if request else {}, () if request else ("failover",))

    def ask_for(self, request: Request) -> bool:
        """An operator's tool writes that request, if none stands."""
        return self.etcd.answers and transactions.put_request(self.etcd, request)

    def set_policy(self, policy: Policy) -> None:
        """The dynamic configuration is that, from now on."""
        self.policy = policy
        self.etcd.write({"config": (asdict(policy), 0)})

    def change_policy(self, **values: Any) -> None:
        """Some of it is changed."""
        self.set_policy(replace(self.policy, **values))

    # -- time --------------------------------------------------------------------------------------------------

    def run_until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Go on until the claim holds; False if it did not within that time."""
        schedule, end = self.ground.schedule, self.now + within_s
        self.settle()
        while not holds():
            if schedule.next_at > end:
                schedule.now = end
                return False
            schedule.step()
        return True

    def run(self, seconds: float) -> None:
        """Go on for that long."""
        schedule, end = self.ground.schedule, self.now + seconds
        while schedule.next_at <= end:
            schedule.step()
        schedule.now = end

    def settle(self) -> None:
        """What follows at this very moment has happened."""
        schedule = self.ground.schedule
        while schedule.next_at <= schedule.now:
            schedule.step()

    # -- what stories ask --------------------------------------------------------------------------------------

    def write(self, size: int = 100) -> None:
        """A client writes on every server that lets it."""
        self.clients.write_everywhere(size)

    def release_held(self, name: str) -> None:
        """Actions of that member that a story held take their course."""
        agent = self.agents[name]
        for task in [task for task in agent.tasks if task.drive is None]:
            agent.carry_out(task)

    def leader(self) -> str:
        """Who holds the leader key; empty if nobody does."""
        return str(self.etcd.get("leader", ""))

    def lost(self) -> list[int]:
        """Acknowledged writes that the present primary does not have."""
        return self.checkers.lost()
