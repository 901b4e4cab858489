"""One seed: a cluster is made, faults strike it again and again, and each time it has to come back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hamgr.core.actions import Lane
from hamgr.core.budget import failover_budget
from hamgr.core.policy import Policy
from hamgr.core.routes import Routes
from hamgr.core.rules.election import COLD_WINDOW_S
from hamgr.core.rules.lead import steady
from hamgr.core.scene import LONGEST_RETRY_S
from hamgr.sim.clock import HostClock
from hamgr.sim.faults import FAULTS, TAKERS, recover
from hamgr.sim.ground import Violation
from hamgr.sim.mutants import Mutant
from hamgr.sim.network import ETCD
from hamgr.sim.pace import Pace
from hamgr.sim.world import World

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")
PHASES = 6
DRIFT = 0.002
"""How much faster or slower than etcd's a host's clock runs: within what the margin allows for (CLOCK_DRIFT)."""
REPAIR_S = 20.0
"""Allowance for rewinding, cloning and catching up, after somebody leads."""
ETCD_HEALS_S = 3.0
LOOK_S = 0.05
AT_LEADER = 0.8
TAKES_LEAD = 0.4
"""How often a fault is drawn from those that take the lead from whom they strike, on top of their share of all."""
STRIKES_AGAIN = 0.7
"""How often the next leader is struck, too, where a fault has changed the leader."""
MOST_STRIKES = 4
EXPIRES = 0.6
"""How often a leader that a fault has silenced is waited for until its lease has run out."""
ACKNOWLEDGED_S = 1.0
"""Clients write at least twice as often: an older last acknowledgement means that they wait."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is fixed; None: drawn from the seed."""

    members: int | None = None
    sync: str | None = None
    mutant: Mutant = Mutant.NONE
    faults: tuple[str, ...] = ()
    """Only these, by name; empty: all."""
    phases: int = PHASES


@dataclass(frozen=True, slots=True)
class Result:
    """How a seed ended. `violation` empty: well."""

    seed: int
    failovers: int
    simulated_s: float
    events: int
    violation: str = ""
    story: str = field(default="", repr=False)


def run_seed(seed: int, options: Options, *, tells_story: bool = False) -> Result:
    """Run one seed to its end, or to the first violation. Raises nothing but bugs of core and world."""
    dice = random.Random(seed)
    trial = Trial(dice, options)
    violation = ""
    try:
        trial.run()
    except AssertionError as wrong:
        violation = str(wrong) or "an assertion of the core failed"
        trial.world.ground.say("-----", violation)
    world = trial.world
    return Result(
        seed=seed,
        failovers=max(0, world.checkers.changes - 1),
        simulated_s=world.now - world.ground.trace.began_at,
        events=world.ground.schedule.steps,
        violation=violation,
        story=world.ground.trace.tell() if tells_story or violation else "",
    )


class Trial:
    """One world on its way through its phases."""

    def __init__(self, dice: random.Random, options: Options) -> None:
        self._dice = dice
        self._options = options
        self._healed_at = 0.0
        self._faults = [fault for fault in FAULTS if not options.faults or fault.__name__ in options.faults]
        self._takers = [fault for fault in self._faults if fault in TAKERS]
        self.world = World(_policy(dice, options), pace=Pace(), dice=dice, mutant=options.mutant, is_supervised=True)
        self.world.clients.every_s = dice.choice((0.1, 0.2, 0.3))
        has_front = dice.random() < 0.5
        self.world.shared.routes = Routes(pools=has_front, targets=has_front, balancers=has_front)

    def run(self) -> None:
        """All phases, with all checks."""
        self._bring_up()
        for _ in range(self._options.phases):
            self._stay_quiet()
            self._strike_again()
            self._come_back()
        self._stay_quiet()

    def _bring_up(self) -> None:
        world, dice = self.world, self._dice
        count = self._options.members or dice.choice((3, 3, 3, 5))
        world.set_policy(world.policy)
        for name in NAMES[:count]:
            origin_s, rate = dice.uniform(0.0, 1e5), 1.0 + dice.uniform(-DRIFT, DRIFT)
            world.add(name, clock=HostClock(origin_s, rate))
        world.clients.begin()
        self._come_back()

    def _stay_quiet(self) -> None:
        """Nothing is wrong: the leader stays, and acknowledges."""
        world = self.world
        before = world.checkers.changes
        world.run(self._dice.choice((0.2, 0.5, 2.0)))
        if world.checkers.changes != before:
            raise Violation("the leader changed, and nothing was wrong")
        if world.now - world.clients.last_at > self.world.policy.ttl_s:
            raise Violation("nothing was wrong, and no write has been acknowledged for a ttl")

    def _strike_again(self) -> None:
        """Strike, and mostly strike whoever leads after that, before anything is mended: at most so many times."""
        for _ in range(MOST_STRIKES):
            before = self.world.checkers.changes
            self._strike()
            if self.world.checkers.changes == before or self._dice.random() >= STRIKES_AGAIN:
                break

    def _strike(self) -> None:
        """One fault, two at once, or one more while the cluster recovers from the first."""
        world, dice = self.world, self._dice
        self._one_fault()
        for _ in range(dice.choice((0, 0, 0, 1, 1, 2))):
            world.run(dice.choice((0.0, 0.01, 0.1, 0.5, 2.0)))
            self._one_fault()
        before = world.checkers.changes
        expiry_s = world.policy.ttl_s + 2.0
        patience_s = dice.choice((0.05, 0.3, 1.0, 3.0, expiry_s))
        self._wait_until(lambda: world.checkers.changes > before, patience_s)
        if dice.random() < EXPIRES and self._is_silenced():
            self._wait_until(lambda: world.checkers.changes > before, expiry_s)
        world.run(dice.choice((0.0, 0.05, 0.3)))

    def _is_silenced(self) -> bool:
        """The leader takes no writes, or does not reach etcd."""
        return not self._is_writable() or self.world.ground.network.is_cut(self.world.leader(), ETCD)

    def _one_fault(self) -> None:
        world, dice = self.world, self._dice
        leader = world.leader()
        name = leader if leader and dice.random() < AT_LEADER else dice.choice(list(world.hosts))
        fault = dice.choice(self._takers if self._takers and dice.random() < TAKES_LEAD else self._faults)
        world.ground.say("FAULT", f"{fault.__name__} ({name})")
        fault(world, dice, name)

    def _come_back(self) -> None:
        """Faults are over: within the bound somebody leads and acknowledges, and then every member is back."""
        world = self.world
        world.ground.say("-----", "faults are over")
        recover(world)
        self._healed_at = world.now
        bound_s = writable_within_s(replace(world.policy, ttl_s=world.longest_ttl_s))
        world.run(LOOK_S)
        if not self._wait_until(lambda: self._is_writable() or self._start_the_stopped(), bound_s):
            raise Violation(f"no writable leader {bound_s:.1f} s after the end of all faults: {self._standing()}")
        if not self._wait_until(self._is_well, bound_s + REPAIR_S):
            raise Violation(f"not every member is back {bound_s + REPAIR_S:.1f} s later: {self._standing()}")

    def _wait_until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Go on until the claim holds, looking every now and then; False if it did not within that time."""
        end = self.world.now + within_s
        while not holds():
            if self.world.now >= end:
                return False
            self.world.run(LOOK_S)
        return True

    def _is_writable(self) -> bool:
        world = self.world
        agent = world.agents.get(world.leader())
        if agent is None or not agent.server.is_writable or agent.state.verified_term != world.etcd.get("term"):
            return False
        return agent.page.deadline is not None and agent.page.deadline > agent.clock_now()

    def _is_well(self) -> bool:
        """One leads and finds nothing to do, the others stream from it, no request stands."""
        world = self.world
        if not self._is_writable() or "failover" in world.etcd.keys or self._is_under_orders():
            return self._start_the_stopped()
        leader = world.leader()
        agent = world.agents[leader]
        if world.shared.front.is_held or not self._is_routed(leader):
            return False
        if agent.decision is None or agent.decision.rule != steady.__name__ or agent.state.illnesses:
            return False
        if agent.state.is_busy(Lane.SERVER):
            # It may be putting its server down for an illness that has ended since.
            return False
        confirmed_at = agent.state.lease.confirmed_at
        if confirmed_at is None or agent.clock_now() - confirmed_at > world.now - self._healed_at:
            # A renewal that was lost before the faults were over may still be waited for.
            return False
        well = world.now - world.clients.last_at < ACKNOWLEDGED_S and all(
            server.streaming and server.upstream.startswith(f"{leader}.") and server.is_awake
            for name, server in world.servers.items()
            if name != leader
        )
        return well or self._start_the_stopped()

    def _is_routed(self, leader: str) -> bool:
        """Clients that come through poolers and load balancers find the leader."""
        world = self.world
        if not world.shared.routes.balancers:
            return True
        front = world.shared.front
        sent_to = world.agents.get(front.routed_to)
        if sent_to is not None and not sent_to.server.is_writable:
            # A former leader's word came late: health checks, of which there are several a second, put it right.
            front.routed_to = leader
        return front.routed_to == leader and all(front.targets.get(name) == leader for name in world.hosts)

    def _is_under_orders(self) -> bool:
        """Somebody has been told to stop, to restart or to be made anew, and has not done so yet. What was told to the
        leader before it led may have to wait until it does not.
        """
        leader = self.world.leader()
        states = [agent.state for name, agent in self.world.agents.items() if name != leader]
        return any(s.stopping_since is not None or s.replace_ordered_at is not None or s.orders for s in states)

    def _start_the_stopped(self) -> bool:
        """An agent that ended in order is started again by its operator."""
        for host in self.world.hosts.values():
            if host.agent.is_stopped_in_order and not host.agent.is_running:
                host.begin()
        return False

    def _standing(self) -> str:
        world = self.world
        words = [f"{a.name}: {a.said[-1][1] if a.said else '-'}, {a.server.phase.value}" for a in world.agents.values()]
        return f"{world.leader() or 'nobody'} leads; " + "; ".join(words)


def writable_within_s(policy: Policy) -> float:
    """How long it may take, at the longest, until somebody leads once all faults are over: a leader that is lost with
    everybody else, promises that have to run out, the longest pause after failures, and etcd's own recovery.
    """
    lost = failover_budget(policy).scenario("leader_lost")
    assert lost is not None
    return lost.writable_s + policy.ttl_s + COLD_WINDOW_S + LONGEST_RETRY_S + ETCD_HEALS_S


def _policy(dice: random.Random, options: Options) -> Policy:
    sync = options.sync or dice.choice(("off", "off", "on", "quorum"))
    return Policy(
        ttl_s=dice.choice((2.0, 3.0, 3.0, 5.0, 5.0, 10.0)),
        loop_wait_s=1.0,
        retry_timeout_s=dice.choice((1.0, 2.0)),
        synchronous_mode=sync,
        synchronous_mode_strict=sync != "off" and dice.random() < 0.2,
        synchronous_node_count=dice.choice((1, 1, 2)),
        maximum_lag_on_failover_bytes=1_000_000_000,
    )
