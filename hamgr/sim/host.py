"""A database host: clock, page, guard, sentry, server and agent, and what can happen to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hamgr.core import facts
from hamgr.core.cluster import Tags
from hamgr.core.policy import Policy
from hamgr.core.server import ServerIdentity
from hamgr.core.state import Myself
from hamgr.sim.agent import Agent, Shared
from hamgr.sim.clock import HostClock
from hamgr.sim.ground import Ground
from hamgr.sim.guard import HEARTBEAT_FRESH_S, Guard, Sentry
from hamgr.sim.mutants import Mutant
from hamgr.sim.page import Page
from hamgr.sim.postgres import Server
from hamgr.sim.renewal import Renewal
from hamgr.sim.steps import Steps
from hamgr.sim.vitals import Vitals
from hamgr.sim.watch import Watch

HOST = "host"
GUARD_LOOKS_S = 0.2


class Host:
    """Everything under one name. `is_supervised`: guard and service manager start again what has died."""

    def __init__(
        self,
        ground: Ground,
        shared: Shared,
        name: str,
        clock: HostClock,
        policy: Policy,
        calls: dict[type, Callable[[Agent, Any], Steps]],
        *,
        tags: Tags | None = None,
        is_supervised: bool = True,
    ) -> None:
        self.ground = ground
        self.name = name
        self.clock = clock
        self.is_supervised = is_supervised
        self.is_up = True
        self.is_abandoned = False
        """Guard and agent are gone, and nobody is to start them again: the sentry alone holds the deadline."""
        self.page = Page()
        self.server = Server(ground, name)
        self.guard = Guard(ground, clock, self.page, self.server)
        self.sentry = Sentry(ground, clock, self.page, self.server)
        me = Myself(name, f"postgres://{name}.host:5432/postgres", f"http://{name}:8008/patroni", "1", tags or Tags())
        self.agent = Agent(ground, shared, (clock, self.page, self.guard, self.server), me, policy, calls)
        self.watch = Watch(self.agent)
        self.renewal = Renewal(self.agent)
        self.vitals = Vitals(self.agent)
        self._shared = shared
        self._replication = shared.replication
        shared.agents[name] = self.agent
        shared.replication.add(self.server)
        self.server.on_exit = self._server_exited
        self.agent.on_exit = self._agent_exited

    # -- starting ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The host is up, with a guard and an agent."""
        self.is_up, self.is_abandoned = True, False
        if not self.guard.is_running:
            self.guard.begin()
        if not self.agent.is_running:
            self.begin_agent()

    def begin_agent(self) -> None:
        """A fresh agent."""
        self.agent.begin()
        self.renewal.begin()
        self.watch.begin()
        self.vitals.begin()

    def _respawn_agent(self) -> None:
        """The guard starts another agent, unless it is gone itself, or the last one ended in order."""
        if self.ground.mutant is Mutant.NO_GUARD or not self.is_supervised:
            return
        self.guard.at(self.ground.later(self.ground.pace.respawn), self._agent_is_due)

    def _agent_is_due(self) -> None:
        if self.is_up and not self.agent.is_running and not self.agent.is_stopped_in_order:
            self.ground.say(self.name, "the guard starts another agent")
            self.begin_agent()

    def _respawn_guard(self) -> None:
        if self.is_supervised and self.ground.mutant is not Mutant.NO_GUARD:
            self.ground.at(self.ground.later(self.ground.pace.respawn), self._guard_is_due)

    def _guard_is_due(self) -> None:
        if self.is_up and not self.guard.is_running:
            self.ground.say(self.name, "the service manager starts another guard")
            self.guard.begin()
            self._look_at_agent()

    # -- deaths ------------------------------------------------------------------------------------------------

    def kill_agent(self) -> None:
        """SIGKILL."""
        if self.agent.is_running:
            self.agent.kill()
            self._respawn_agent()
            self._watch_by_sentry()

    def kill_guard(self, *, for_good: bool = False) -> None:
        """SIGKILL. `for_good`: the service manager does not start another."""
        if self.guard.is_running:
            self.guard.end()
            self.agent.at(self.ground.now + HEARTBEAT_FRESH_S, self._agent_sees_guard)
            self._watch_by_sentry()
            if not for_good:
                self._respawn_guard()

    def kill_control(self) -> None:
        """Guard and agent are gone for good, until somebody starts the service again."""
        self.agent.kill()
        self.kill_guard(for_good=True)

    def freeze_agent(self) -> None:
        """SIGSTOP. The guard misses its heartbeat, and replaces it."""
        self.agent.freeze("fault")
        self._look_at_agent()

    def freeze_guard(self) -> None:
        """SIGSTOP. The service manager misses its notices, and replaces it."""
        self.guard.freeze("fault")
        self._watch_by_sentry()
        self.agent.at(self.ground.now + HEARTBEAT_FRESH_S, self._agent_sees_guard)
        if self.is_supervised:
            self.ground.at(self.ground.now + 2 * HEARTBEAT_FRESH_S, self._replace_frozen_guard)

    def _look_at_agent(self) -> None:
        """The guard, now and a moment later: an agent that is dead is started, one that is frozen is killed first."""
        if not self.is_supervised or self.ground.mutant is Mutant.NO_GUARD:
            return
        if not self.agent.is_running:
            self._respawn_agent()
        elif self.agent.is_frozen:
            self.guard.at(self.ground.now + HEARTBEAT_FRESH_S, self._replace_frozen_agent)

    def _replace_frozen_agent(self) -> None:
        frozen_at = self.agent.frozen_at
        if frozen_at is None or not self.agent.is_running:
            return
        if self.ground.now - frozen_at < HEARTBEAT_FRESH_S:
            self._look_at_agent()
            return
        self.ground.say(self.name, "the guard kills the frozen agent")
        self.kill_agent()

    def _replace_frozen_guard(self) -> None:
        if self.is_up and self.guard.is_running and self.guard.is_frozen:
            self.ground.say(self.name, "the service manager kills the frozen guard")
            self.guard.end()
            self._respawn_guard()

    def _agent_sees_guard(self) -> None:
        """The agent posts when the guard's heartbeat stops or returns."""
        is_alive = self.guard.looks_alive
        if is_alive != self.agent.state.guard_alive:
            self.agent.post(facts.GuardSeen(is_alive))
        if not is_alive:
            self.agent.at(self.ground.now + GUARD_LOOKS_S, self._agent_sees_guard)

    def _watch_by_sentry(self) -> None:
        # It goes by the page alone. An awake guard was first: the sentry must not hide what that one failed at.
        self.sentry.watch(lambda: not self.guard.is_awake)

    # -- the whole host ----------------------------------------------------------------------------------------

    def lose(self) -> None:
        """Power off. Nobody is told that its connections are dead."""
        self.is_up = False
        self._replication.lost_host(self.server)
        self.agent.kill()
        self.guard.end()
        self.server.stop(clean=False)
        self.thaw_all()
        self.page.wipe()

    def suspend(self) -> None:
        """Everything on the host stands still; its boot clock goes on."""
        for process in (self.guard, self.server, self.agent):
            process.freeze(HOST)
        self._replication.went_silent(self.server)

    def resume(self) -> None:
        """Thawed: the guard runs first, what the server had in flight goes on, the others come later."""
        ground, pace = self.ground, self.ground.pace
        self.server.accepts_from = ground.now + pace.turn[1] + pace.kill[1] + pace.hop[1]
        self.guard.thaw(HOST, lambda: ground.draw(pace.turn))
        self.server.thaw(HOST, lambda: ground.draw(pace.hop))
        self.agent.thaw(HOST, lambda: ground.draw(pace.thaw))
        self._shared.on_thaw(self.server)

    def thaw_all(self) -> None:
        """Whoever froze anything here lets it go on."""
        pace = self.ground.pace
        for process in (self.guard, self.server, self.agent):
            process.thaw("fault", lambda: self.ground.draw(pace.turn))
        if self.guard.is_frozen or self.server.is_frozen or self.agent.is_frozen:
            self.resume()

    # -- notices -----------------------------------------------------------------------------------------------

    def _server_exited(self, _server: Server, identity: ServerIdentity) -> None:
        agent, ground = self.agent, self.ground
        if agent.is_running:
            died_at = self.clock.read(ground.now)
            agent.at(ground.later(ground.pace.notice), lambda: agent.post(facts.ServerExited(identity, died_at)))

    def _agent_exited(self, agent: Agent) -> None:
        self.ground.say(self.name, f"the agent ends with code {agent.exit_code}")
        if agent.exit_code == 0:
            self.ground.etcd.revoke(agent.lease_id)
        else:
            self._respawn_agent()
            self._watch_by_sentry()
