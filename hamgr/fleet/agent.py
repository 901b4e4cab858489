"""One light agent: the real loop, core, renewal thread, watch and store calls; no PostgreSQL, no guard, no REST.

What it has of its own, as on a host of its own: a lease, a connection for the renewal, another one for watch, reads and
transactions, a page for the guard (beaten by itself). What is left out costs etcd nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hamgr.agent.clock import now
from hamgr.agent.compose import PERMIT_TICKS
from hamgr.agent.executor import execute
from hamgr.agent.guardlink import GuardLink, nanoseconds
from hamgr.agent.journal import Journal
from hamgr.agent.loop import Loop, Pulse
from hamgr.agent.memory import Memory
from hamgr.agent.peers import Peers
from hamgr.agent.renewal import Renewer
from hamgr.agent.sensors import watch_store
from hamgr.agent.store_calls import STORE_CALLS
from hamgr.agent.world import World
from hamgr.core.actions import Action, AskPeers, Fence, Lane, Promote
from hamgr.core.facts import Fact, LeaseGone, PolicyRead, Probed, VitalChecked
from hamgr.core.policy import Policy
from hamgr.core.result import Outcome, Result
from hamgr.core.scene import Scene
from hamgr.core.server import Vital
from hamgr.core.state import Myself, State
from hamgr.core.units import Instant, after
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.errors import StoreError
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.lease import RenewalConnection
from hamgr.fleet.samples import Samples, TimedRenewal, TimedStore
from hamgr.fleet.server import StandIn
from hamgr.guard.layout import SharedPage, boottime_ns
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.server import LocalServer
from hamgr.settings import parse_dynamic
from hamgr.version import VERSION

NAMESPACE = "/fleet/"
SYSTEM_IDENTIFIER = "7000000000000000001"
BEAT_S = 0.5
_CANCEL_AGAIN_S = 0.1
NOT_ENTITLED = Outcome(Result.REFUSED, "not_entitled", "this member does not hold the leader key")
NO_PEERS = Outcome(Result.FAILED, "timeout", "light agents serve no REST")


@dataclass(frozen=True, slots=True)
class Standing:
    """What an agent knows of its cluster. `is_settled`: all members are there, and it is announced who leads."""

    leads: bool
    is_settled: bool


class LightAgent:
    """Runs in one event loop from `start` to `end`. `members`: how many its cluster has."""

    def __init__(self, cluster: str, name: str, members: int, etcd: EtcdConfig, room: Path, samples: Samples) -> None:
        self.cluster = cluster
        self.name = name
        self._members = members
        self._samples = samples
        room.mkdir(parents=True)
        keys = ScopeKeys.of(cluster, NAMESPACE)
        self._link = GuardLink(str(room), SharedPage.open(str(room)))
        self._client = EtcdClient(etcd)
        self._server = StandIn(SYSTEM_IDENTIFIER, 1)
        host = f"{name}.{cluster}"
        me = Myself(name, f"postgres://{host}:5432/postgres", f"http://{host}:8008/patroni", VERSION)
        self._loop = Loop(State(me, Policy()), self._execute, self._read_policy, Journal(), self._on_pulse)
        renewal = TimedRenewal(RenewalConnection(etcd, keys), samples)
        self._renewer = Renewer(name, renewal, self._link, self._post_from_thread)
        self._world = World(
            store=TimedStore(self._client, keys, cluster, name, samples),
            # Votes ask it for what it has received, nothing else: the other actions do not get as far.
            server=cast(LocalServer, self._server),
            link=self._link,
            peers=cast(Peers, None),
            memory=Memory(room / "remembered.json", keys),
            state=lambda: self._loop.state,
            post=self._loop.post,
            probe=self._probe,
            probe_soon=lambda: None,
            recorded=lambda _record: None,
            seed_config=dict,
            wanted=_no_configuration,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Everything runs on return. To be called in the event loop."""
        self._thread_loop = asyncio.get_running_loop()
        self._beat()
        self._renewer.start()
        self._tasks = [
            asyncio.create_task(part) for part in (self._decide(), self._look(), self._beats(), self._watch())
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def end(self) -> Instant | None:
        """Gone as by SIGKILL: the lease stays until it runs out. Returns from when its ttl counts."""
        confirmed_at = self._loop.state.lease.confirmed_at
        self._renewer.end()
        pending = set(self._tasks)
        while pending:
            # Again and again: asyncio.wait_for (Python 3.11) swallows a cancellation that comes along with its result.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
        await self._client.close()
        return confirmed_at

    @property
    def lease_id(self) -> int:
        return self._loop.state.lease.lease_id

    def write(self, is_written_to: bool) -> None:
        """Whether the server's position moves, whenever it is a primary."""
        self._server.is_written_to = is_written_to

    def standing(self) -> Standing:
        state = self._loop.state
        view = state.cluster
        if view is None or view.leader is None or not state.lease.lease_id:
            return Standing(leads=False, is_settled=False)
        leads = view.leader.name == self.name and view.leader.lease_id == state.lease.lease_id
        leader = view.member(view.leader.name)
        is_settled = (
            len(view.members) == len(view.roster) == self._members
            and leader is not None
            and leader.role == "primary"
            and all(member.state == "running" for member in view.members)
            and (leads or self._server.in_recovery)
        )
        return Standing(leads, is_settled)

    # -- the parts ---------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        code = await self._loop.run()
        self._tell(f"decided to exit with {code}")

    def _tell(self, problem: str) -> None:
        self._samples.problems.append(f"{self.cluster}/{self.name} {problem}")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._tell(f"failed: {task.exception()!r}")

    async def _look(self) -> None:
        while True:
            began_at = now()
            self._server.tick(self._loop.state.cluster)
            for vital in Vital:
                # A leader that does not show that it is well gets no permit.
                self._loop.post(VitalChecked(vital, began_at))
            await self._probe()
            await asyncio.sleep(max(0.05, self._loop.state.policy.loop_wait_s - (now() - began_at)))

    async def _watch(self) -> None:
        await watch_store(
            self._world.store, self._loop.post, lambda: self._loop.state.policy.retry_timeout_s, lambda: 0
        )

    async def _beats(self) -> None:
        while True:
            self._beat()
            await asyncio.sleep(BEAT_S)

    def _beat(self) -> None:
        """The guard's and the agent's: both would be there."""
        self._link.page.guard_heartbeat_ns = boottime_ns()
        self._link.beat()

    async def _probe(self) -> None:
        self._loop.post(Probed(self._server.seen(self._loop.state.cluster, now())))

    def _post_from_thread(self, fact: Fact) -> None:
        if isinstance(fact, LeaseGone):
            self._samples.lost_leases.append(f"{self.cluster}/{self.name}")
        # The loop may be closed by the time that the last renewal of an ended agent is answered.
        with contextlib.suppress(RuntimeError):
            self._thread_loop.call_soon_threadsafe(self._loop.post, fact)

    def _read_policy(self, state: State) -> PolicyRead | None:
        config = state.cluster.config if state.cluster is not None else None
        if config is None or config.mod_revision == state.policy_revision:
            return None
        dynamic, problems = parse_dynamic(config.values)
        return PolicyRead(dynamic.policy(), config.mod_revision, tuple(map(str, problems)))

    def _on_pulse(self, pulse: Pulse) -> None:
        """As the agent does: a permit for the renewal after each decision."""
        lasts_s = PERMIT_TICKS * max(pulse.state.policy.loop_wait_s, 0.2)
        until = after(pulse.at, lasts_s) if pulse.decision.may_renew else Instant(0.0)
        self._renewer.permit(pulse.state.lease.lease_id, until, pulse.state.policy)

    async def _execute(self, action: Action) -> Outcome:
        if type(action) in STORE_CALLS:
            return await execute(self._world, action)
        if isinstance(action, AskPeers):
            return NO_PEERS
        outcome = self._promote(action) if isinstance(action, Promote) else self._server.carry_out(action)
        if isinstance(action, Fence):
            self._tell("was fenced")
        if action.lane is Lane.SERVER:
            if not self._server.is_running or self._server.in_recovery:
                self._link.disarm()
            await self._probe()
        return outcome

    def _promote(self, action: Promote) -> Outcome:
        """Armed first, as the agent does, so that its renewals move the page's deadline on."""
        state = self._loop.state
        scene = Scene(state, now())
        if not scene.leads or state.lease.term != action.term or scene.deadline is None:
            return NOT_ENTITLED
        page = self._link.page
        page.term, page.lease_id = action.term, state.lease.lease_id
        page.arm(nanoseconds(scene.deadline), 0, 0)
        return self._server.promote(now())


def _no_configuration() -> ServerConfig:
    raise AssertionError("a light agent's server has no configuration")


async def revoke(client: EtcdClient, lease_id: int) -> None:
    """The keys of that lease are gone. Done as well if they were before."""
    with contextlib.suppress(StoreError):
        await client.revoke_lease(lease_id)
