"""A miniature deterministic world: the real observe and decide of a few members, an etcd and servers in memory.

Virtual time. Every action takes ACTION_S and then takes effect at once; a story may make its reply lost, let it fail
or hold it. After every event the world is checked: never two writable servers, never a silent divergence, no action
without right, no hot loop.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from core.fake_calls import CALLS, NO_ETCD, STORE_LANES
from core.fake_etcd import FakeEtcd
from core.fake_server import FakeServer
from hamgr.core import actions, facts
from hamgr.core.actions import Action, Lane
from hamgr.core.cluster import Request, Tags
from hamgr.core.decide import Decision, decide
from hamgr.core.observe import observe
from hamgr.core.pipeline import Record
from hamgr.core.policy import Policy
from hamgr.core.result import Outcome, Result
from hamgr.core.server import Phase, Vital
from hamgr.core.state import Myself, State
from hamgr.core.units import Instant, Term

ACTION_S = 0.005
RECEIVE_PATIENCE_S = 0.2
"""How long a vote waits for offered WAL that is still on its way."""
RENEWAL_RETRY_S = 0.1
HOT_LOOP = 30
"""So many starts of one kind of action by one member within a second are a loop without back-off."""
SHUTDOWN_CHECKPOINT_BYTES = 0x78


class Violation(AssertionError):
    """The world was seen in a state that must never be."""


@dataclass
class Upset:
    """How a story disturbs the next actions of one kind: 'lost reply', 'fail' or 'hold'."""

    how: str
    code: str = ""
    left: int = 1_000_000


@dataclass
class Agent:
    name: str
    server: FakeServer
    state: State
    inbox: deque[facts.Fact] = field(default_factory=deque)
    decision: Decision | None = None
    is_alive: bool = False
    exit_code: int | None = None
    renew_at: float = 0.0
    guard_deadline: float | None = None
    said: list[tuple[float, str]] = field(default_factory=list)
    started: list[tuple[float, Action]] = field(default_factory=list)
    generation: int = 0

    @property
    def lease_id(self) -> int:
        return self.state.lease.lease_id

    def post(self, fact: facts.Fact) -> None:
        self.inbox.append(fact)


@dataclass
class World:
    """Members by name; `now` moves only in run_until."""

    policy: Policy = field(default_factory=Policy)
    now: float = 1000.0
    etcd: FakeEtcd = field(default_factory=FakeEtcd)
    etcd_answers: bool = True
    agents: dict[str, Agent] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)
    isolated: set[str] = field(default_factory=set)
    upsets: dict[tuple[str, str], Upset] = field(default_factory=dict)
    held: list[tuple[str, Action]] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)
    guard_kills: list[str] = field(default_factory=list)
    kept_aside: list[str] = field(default_factory=list)
    records: dict[int, Record] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    systems: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)
    _seen_revision: int = 0

    # -- members and their hosts -------------------------------------------------------------------------------

    def add(self, name: str, tags: Tags | None = None) -> Agent:
        me = Myself(
            name, f"postgres://{self.address(name)}/postgres", f"http://{name}:8008/patroni", "1", tags or Tags()
        )
        agent = Agent(name, FakeServer(name), State(me, policy=self.policy))
        self.agents[name] = agent
        self.start_agent(name)
        return agent

    def start_agent(self, name: str) -> None:
        """A fresh agent on the host: it adopts the lease if the guard's page still has one in force."""
        agent = self.agents[name]
        before = agent.state
        agent.state = State(before.me, policy=self.policy)
        agent.inbox.clear()
        agent.is_alive, agent.exit_code, agent.decision = True, None, None
        agent.generation += 1
        self.held = [held for held in self.held if held[0] != name]
        lease = before.lease
        if lease.deadline is not None and self.now < lease.deadline:
            term = lease.term if agent.guard_deadline is not None else Term(0)
            agent.post(facts.LeaseAdopted(lease.lease_id, lease.deadline, term))
        self.probe(agent)
        agent.renew_at = self.now
        self._tick(agent, agent.generation)

    def stop_agent(self, name: str) -> None:
        self.agents[name].is_alive = False
        self.agents[name].generation += 1

    def lose_host(self, name: str) -> None:
        self.stop_agent(name)
        agent = self.agents[name]
        agent.guard_deadline = None
        if agent.server.is_alive:
            agent.server.stop(clean=False)

    def crash_server(self, name: str) -> None:
        """The postmaster dies; the agent is told by the pidfd."""
        agent = self.agents[name]
        identity = agent.server.identity
        agent.server.stop(clean=False)
        if identity is not None and agent.is_alive:
            agent.post(facts.ServerExited(identity, Instant(self.now)))

    @staticmethod
    def address(name: str) -> str:
        return f"{name}.host:5432" if name else ""

    def reachable_server(self, name: str, by: str) -> FakeServer | None:
        agent = self.agents.get(name)
        if agent is None or {name, by} & self.isolated or agent.server.phase is not Phase.RUNNING:
            return None
        return None if agent.server.is_hung else agent.server

    def sees_etcd(self, agent: Agent) -> bool:
        return self.etcd_answers and agent.name not in self.cut_off

    def is_entitled(self, agent: Agent, term: int) -> bool:
        """What the executor checks again right before acting."""
        lease = agent.state.lease
        return lease.term == term and lease.deadline is not None and self.now < lease.deadline

    def arm(self, agent: Agent) -> None:
        agent.guard_deadline = agent.state.lease.deadline

    def disarm(self, agent: Agent) -> None:
        agent.guard_deadline = None

    def stop_server(self, agent: Agent) -> None:
        """Fast shutdown: standbys that stream get the last record."""
        server = agent.server
        if not server.is_alive:
            return
        if server.in_recovery:
            server.stop(clean=True)
            return
        server.lsn += SHUTDOWN_CHECKPOINT_BYTES
        self._replicate()
        server.stop(clean=True)

    def probe(self, agent: Agent) -> None:
        standbys = tuple(a.server for a in self.agents.values() if a.server.streaming and self._upstream_of(a) is agent)
        agent.post(facts.Probed(agent.server.view(self.now, standbys)))
        if agent.server.is_writable:
            for vital in Vital:
                agent.post(facts.VitalChecked(vital, Instant(self.now)))
        elif agent.server.is_hung and not agent.server.in_recovery:
            agent.post(facts.VitalChecked(Vital.CONNECTION, Instant(self.now), "no answer in time", is_hung=True))

    def write(self, size: int = 100) -> None:
        """A client writes on every server that lets it; the answer makes it acknowledged."""
        for agent in self.agents.values():
            if agent.server.is_writable:
                number = next(self._numbers)
                agent.server.write(number, size)
                self.acked.append(number)
        self._replicate()

    def request(self, request: Request | None) -> None:
        self.etcd.write({"failover": (request, 0)} if request else {}, () if request else ("failover",))

    def set_policy(self, policy: Policy) -> None:
        self.policy = policy
        self.etcd.write({"config": ({}, 0)})
        for agent in self.agents.values():
            agent.post(facts.PolicyRead(policy, self.etcd.revision))

    # -- time --------------------------------------------------------------------------------------------------

    def run_until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Go on until the claim holds; False if it did not within that time."""
        end = self.now + within_s
        self._settle()
        while not holds():
            moment = min(self._next_moment(), end)
            self.now = max(self.now, moment)
            if self.now >= end:
                self._settle()
                return holds()
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._settle()
        return True

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), do))

    def _next_moment(self) -> float:
        leases = [lease.expires_at for lease in self.etcd.leases.values()] if self.etcd_answers else []
        guards = [a.guard_deadline for a in self.agents.values() if a.guard_deadline is not None]
        renewals = [a.renew_at for a in self.agents.values() if a.is_alive and a.lease_id]
        wakes = [a.decision.wake_at for a in self.agents.values() if a.is_alive and a.decision and a.decision.wake_at]
        events = [self._events[0][0]] if self._events else []
        return min([m for m in (*leases, *guards, *renewals, *wakes, *events) if m > self.now], default=self.now + 1.0)

    def _settle(self) -> None:
        """Everything that follows at this very instant, in a fixed order."""
        self._expire()
        for agent in self.agents.values():
            self._renew(agent)
        for _ in range(1000):
            self._replicate()
            self._spread()
            started = [self._decide(agent) for agent in self.agents.values()]
            if not any(started):
                self._check()
                return
        raise Violation("the world does not come to rest")

    def _expire(self) -> None:
        if self.etcd_answers:
            self.etcd.expire(self.now)
        for agent in self.agents.values():
            if agent.guard_deadline is not None and self.now >= agent.guard_deadline:
                agent.guard_deadline = None
                if agent.server.is_alive:
                    self.guard_kills.append(agent.name)
                    self.crash_server(agent.name)

    def _renew(self, agent: Agent) -> None:
        """What the renewal thread does: with a permit it renews, and says when etcd does not answer."""
        if not agent.is_alive or not agent.lease_id or self.now < agent.renew_at:
            return
        agent.renew_at = self.now + RENEWAL_RETRY_S
        if agent.decision is None or not agent.decision.may_renew:
            return
        if not self.sees_etcd(agent):
            agent.renew_at = self.now + self.policy.retry_timeout_s
            agent.post(facts.StoreFailed(Instant(self.now), "etcd does not answer"))
            return
        agent.renew_at = self.now + agent.state.policy.renew_interval_s
        if not self.etcd.renew(agent.lease_id, self.now):
            agent.post(facts.LeaseGone(agent.lease_id, Instant(self.now)))
            return
        deadline = Instant(self.now + self.policy.ttl_s - self.policy.margin_s)
        view = self.etcd.view(self.now)
        if agent.guard_deadline is not None and view.is_led_by(agent.name):
            agent.guard_deadline = deadline
        agent.post(facts.Renewed(agent.lease_id, deadline, view))

    def _spread(self) -> None:
        """The watch: whoever is connected sees every change at once."""
        view = self.etcd.view(self.now)
        for agent in self.agents.values():
            known = agent.state.cluster
            if agent.is_alive and self.sees_etcd(agent) and (known is None or known.revision < view.revision):
                agent.post(facts.ClusterSeen(view))

    def _upstream_of(self, agent: Agent) -> Agent | None:
        return self.agents.get(agent.server.upstream.partition(".")[0])

    def _replicate(self) -> None:
        for agent in self.agents.values():
            server, source = agent.server, self._upstream_of(agent)
            if not server.is_alive or not server.in_recovery:
                continue
            other = self.reachable_server(source.name, agent.name) if source else None
            server.streaming = other is not None and server.is_ancestor_of(other)
            if other is None or not server.streaming or not server.receives or server.is_hung:
                continue
            if server.log != other.log[: len(server.log)]:
                raise Violation(f"{server.name} streams from {other.name}, and their WAL differs unseen")
            server.timeline, server.ends, server.lsn, server.log = (
                other.timeline,
                dict(other.ends),
                other.lsn,
                other.log,
            )

    # -- deciding and acting -----------------------------------------------------------------------------------

    def _tick(self, agent: Agent, generation: int) -> None:
        if agent.generation != generation or not agent.is_alive:
            return
        self.probe(agent)
        self.at(self.now + self.policy.loop_wait_s, lambda: self._tick(agent, generation))

    def _decide(self, agent: Agent) -> bool:
        """Fold what was learned and decide; True if anything was started."""
        if not agent.is_alive or not self._has_cause_to_decide(agent):
            return False
        while agent.inbox:
            agent.state = observe(agent.state, agent.inbox.popleft())
        agent.decision = decide(agent.state, Instant(self.now))
        said = f"{agent.decision.rule}: {agent.decision.reason.code.value}"
        if not agent.said or agent.said[-1][1] != said:
            agent.said.append((self.now, said))
        for action in agent.decision.actions:
            self._start(agent, action)
        return bool(agent.decision.actions)

    def _has_cause_to_decide(self, agent: Agent) -> bool:
        decision = agent.decision
        is_due = decision is None or (decision.wake_at is not None and decision.wake_at <= self.now)
        return is_due or bool(agent.inbox)

    def _start(self, agent: Agent, action: Action) -> None:
        self._check_start(agent, action)
        agent.started.append((self.now, action))
        if isinstance(action, actions.Exit):
            agent.exit_code = action.code
            self.stop_agent(agent.name)
            return
        if isinstance(action, actions.Fence):
            for task in agent.state.under_way:
                if task.action.lane is Lane.SERVER:
                    overtaken = Outcome(Result.FAILED, "overtaken", "the server was fenced meanwhile")
                    agent.state = observe(agent.state, facts.ActionEnded(task.action, overtaken, Instant(self.now)))
        agent.state = observe(agent.state, facts.ActionStarted(action, Instant(self.now)))
        upset = self.upsets.get((agent.name, type(action).__name__))
        if upset is not None and upset.how == "hold":
            self.held.append((agent.name, action))
            return
        generation = agent.generation
        self.at(self.now + self._takes(agent, action), lambda: self.finish(agent, action, generation))

    @staticmethod
    def _takes(agent: Agent, action: Action) -> float:
        lacks_wal = isinstance(action, actions.CastBallot) and agent.server.lsn < action.at_least
        return RECEIVE_PATIENCE_S if lacks_wal else ACTION_S

    def release_held(self, name: str) -> None:
        for holder, action in [held for held in self.held if held[0] == name]:
            self.held.remove((holder, action))
            self.finish(self.agents[holder], action, self.agents[holder].generation)

    def finish(self, agent: Agent, action: Action, generation: int) -> None:
        """The action takes effect and ends, unless its agent died or it was overtaken meanwhile."""
        if agent.generation != generation or agent.state.running(type(action)) is None:
            return
        outcome = self._outcome(agent, action)
        if action.lane is Lane.SERVER:
            self.probe(agent)
        agent.post(facts.ActionEnded(action, outcome, Instant(self.now)))

    def _outcome(self, agent: Agent, action: Action) -> Outcome:
        upset = self.upsets.get((agent.name, type(action).__name__))
        is_upset = upset is not None and upset.how != "hold" and upset.left > 0
        if upset is not None and is_upset:
            upset.left -= 1
            if upset.how == "fail":
                return Outcome(Result.FAILED, upset.code or "failed", "as the story wants it")
        if action.lane in STORE_LANES and not self.sees_etcd(agent):
            return NO_ETCD
        inbox = len(agent.inbox)
        outcome = CALLS[type(action)](self, agent, action)
        if is_upset:
            while len(agent.inbox) > inbox:
                agent.inbox.pop()
            return Outcome(Result.UNKNOWN, "unknown", "the reply was lost")
        return outcome

    # -- checks ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        writable = [agent.name for agent in self.agents.values() if agent.server.is_writable]
        if len(writable) > 1:
            raise Violation(f"two primaries at {self.now:.3f}: {writable}")

    def _check_start(self, agent: Agent, action: Action) -> None:
        recent = [each for at, each in agent.started if at > self.now - 1.0 and type(each) is type(action)]
        if len(recent) >= HOT_LOOP:
            raise Violation(f"hot loop: {agent.name} starts {action} again and again ({agent.said[-1][1]})")
        if isinstance(action, actions.ReleaseLeader) and agent.server.is_alive:
            raise Violation(f"{agent.name} releases the key while its server lives")
        if isinstance(action, actions.StartPrimary) and not agent.server.was_primary:
            raise Violation(f"{agent.name} starts a replica's data as a primary on the old timeline")

    def lost(self) -> list[int]:
        """Acknowledged writes that the present primary does not have."""
        primary = next((a.server for a in self.agents.values() if a.server.is_writable), None)
        have = {number for _, number in primary.log} if primary else set()
        return [number for number in self.acked if number not in have]


def with_pause(policy: Policy, *, pause: bool) -> Policy:
    return replace(policy, pause=pause)
