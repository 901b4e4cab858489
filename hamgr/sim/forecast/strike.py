"""One simulated cluster through the faults of its plan: what each of them cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from hamgr.core.policy import Policy
from hamgr.sim.faults import recover
from hamgr.sim.forecast.causes import BY_KEY, Cause, Kind
from hamgr.sim.forecast.environment import WRITE_EVERY_S, Environment
from hamgr.sim.forecast.plan import Strike, WorldPlan
from hamgr.sim.ground import Violation
from hamgr.sim.lab.field import Setting
from hamgr.sim.lab.observer import Observer, gaps_of
from hamgr.sim.lab.ours import OurCluster
from hamgr.sim.network import CLIENT
from hamgr.sim.pace import BRIEFLY
from hamgr.sim.run import writable_within_s

FORMS_WITHIN_S = 600.0
TWICE = 2
"""A repair may fail, and be done again."""
LOOK_S = 0.25
LOOK_CLOSELY_S = 0.01
SETTLED_S = 2.0
"""A leader that has led for so long after a fault is there to stay."""
REPLICA_FAULT_S = 5.0
"""What a fault on a replica does is done within the ttl and so long."""
QUIET_S = (0.5, 3.0)


@dataclass(frozen=True, slots=True)
class Task:
    """One world of a forecast."""

    policy: Policy
    environment: Environment
    plan: WorldPlan
    tells_story: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one fault cost. Seconds. `changes` of leader: another leads; `needless`: how many of them for nothing.
    `election_s`: from the loss of the leader being noticed to the taking of the key; `gap_s`: the longest time without
    a server that takes writes, `down_s` all of it. `lost_bytes`: acknowledged and gone.
    """

    strike: Strike
    changes: int
    needless: int
    election_s: float | None
    gap_s: float
    down_s: float
    lost_bytes: int

    @property
    def interrupts(self) -> bool:
        """There was no server that takes writes for a while, and the same one led again."""
        return self.down_s > 0 and not self.changes


class NotWell(Exception):
    """The cluster did not get well in time; the text says from what."""


@dataclass(frozen=True, slots=True)
class WorldResult:
    """`problem`: from what the cluster did not get well in time; `violation`: what must never be."""

    number: int
    outcomes: tuple[Outcome, ...]
    violation: str = ""
    problem: str = ""
    story: str = field(default="", repr=False)


def run_world(task: Task) -> WorldResult:
    """Run one world to its end, or to the first violation."""
    course = Course(task)
    violation, problem = "", ""
    try:
        course.run()
    except Violation as wrong:
        violation = str(wrong)
    except NotWell as late:
        problem = str(late)
    if violation or problem:
        course.world.ground.say("-----", violation or problem)
    trace = course.world.ground.trace
    story = trace.tell() if task.tells_story or violation else ""
    return WorldResult(task.plan.number, tuple(course.outcomes), violation, problem, story)


class Course:
    """One world on its way through its strikes."""

    def __init__(self, task: Task) -> None:
        self._dice = random.Random(f"world {task.plan.number}")
        self._strikes = task.plan.strikes
        self._policy = task.policy
        environment = task.environment
        self._write_bytes = environment.write_bytes
        self._cluster = OurCluster(self._dice, Setting(environment.members, pace=environment.pace()), task.policy)
        self._cluster.network.packet_loss = environment.packet_loss
        self._packet_loss = environment.packet_loss
        self.world = self._cluster.world
        self.world.clients.every_s = WRITE_EVERY_S
        self.world.clients.sizes = (self._write_bytes, self._write_bytes)
        self._observer = Observer(self._cluster, CLIENT)
        self._marks = Marks()
        self.world.etcd.before_write.append(self._mark)
        self._sit_out_s = environment.sit_out
        self._elects_within_s = writable_within_s(task.policy)
        self._repairs_within_s = TWICE * environment.longest_repair_s
        self._pace = self.world.ground.pace
        self.outcomes: list[Outcome] = []

    def run(self) -> None:
        """All strikes. Raises NotWell, Violation."""
        self._cluster.begin()
        for strike in self._strikes:
            self._become_whole()
            self.outcomes.append(self._suffer(strike))
            recover(self.world)
            self._cluster.network.packet_loss = self._packet_loss

    def _become_whole(self) -> None:
        """Everybody is there, and one has led for a while. Repairs that begin now are quick: nobody counts them."""
        self.world.ground.pace = replace(self._pace, recovery=BRIEFLY, rewind=BRIEFLY, clone=BRIEFLY)
        patience_s = FORMS_WITHIN_S + self._repairs_within_s
        end = self.world.now + patience_s
        while self.world.now < end and self._run_until(self._cluster.is_ready, end - self.world.now):
            self._run(self._dice.uniform(*QUIET_S))
            if self._cluster.accepting():
                self.world.ground.pace = self._pace
                return
        raise NotWell(f"the cluster is not whole after {patience_s:g} s without a fault")

    def _suffer(self, strike: Strike) -> Outcome:
        cause, world = BY_KEY[strike.cause], self.world
        leader = self._cluster.accepting()[0]
        others = [name for name in self._cluster.names if name != leader]
        name = leader if strike.on_leader else self._dice.choice(others)
        lasts = f", for {strike.lasts_s:.3f} s" if strike.lasts_s else ""
        world.ground.say("FAULT", f"{cause.title} ({name}){lasts}")
        lost_before = self._lost()
        self._observer.strike()
        self._marks.clear()
        struck_at = world.now
        cause.strike(world, name)
        beyond_s = self._last(strike, cause, name)
        outcome = self._add_up(strike, cause, struck_at, beyond_s)
        outcome = replace(outcome, lost_bytes=(self._lost() - lost_before) * self._write_bytes)
        world.ground.say("-----", _told(outcome))
        return outcome

    def _last(self, strike: Strike, cause: Cause, name: str) -> float:
        """The fault lasts and ends, and its consequences are over. It ends early once another leads: what follows is
        the same. Returns for how much longer than was simulated nobody can lead, in seconds. Raises NotWell.
        """
        began_at, is_settled, leads = self.world.now, self._settled(), self._leads
        if cause.ends_with_lead:
            self._run_until(lambda: not leads(), self._elects_within_s, LOOK_CLOSELY_S)
        else:
            patience_s = self._elects_within_s if strike.on_leader else self._policy.ttl_s + REPLICA_FAULT_S
            self._run_until(
                lambda: self._marks.elected_at is not None and is_settled(), min(strike.lasts_s, patience_s)
            )
        if not leads():
            left_s = began_at + strike.lasts_s - self.world.now
            self._run_until(is_settled, min(left_s, self._repairs_within_s))
        beyond_s = 0.0 if leads() else max(0.0, began_at + strike.lasts_s - self.world.now)
        cause.end(self.world, name)
        patience_s = self._elects_within_s + self._repairs_within_s
        if not self._run_until(self._settled(), patience_s):
            raise NotWell(f"{patience_s:g} s after {cause.title} nobody leads for good")
        return beyond_s

    def _leads(self) -> bool:
        return self._observer.has_leader

    def _settled(self) -> Callable[[], bool]:
        """One has led, within reach of clients, for long enough."""
        since: list[float] = []

        def holds() -> bool:
            is_led = self._observer.has_leader
            is_done = "failover" not in self.world.etcd.keys and "leader" in self.world.etcd.keys
            if not (is_led and is_done):
                since.clear()
            elif not since:
                since.append(self.world.now)
            return bool(since) and self.world.now - since[0] >= SETTLED_S

        return holds

    def _add_up(self, strike: Strike, cause: Cause, struck_at: float, beyond_s: float) -> Outcome:
        spans = list(self._observer.spans())
        gaps = gaps_of(spans)
        if gaps:
            gaps[-1] += beyond_s
        changes = self._observer.changes
        led_again_s = next((span.end - struck_at for span in reversed(spans) if not span.reached), 0.0)
        return Outcome(
            strike=strike,
            changes=changes,
            needless=changes if self._is_spared(strike, cause, led_again_s + beyond_s) else max(0, changes - 1),
            election_s=self._marks.election_s if changes else None,
            gap_s=max(gaps, default=0.0),
            down_s=sum(gaps),
            lost_bytes=0,
        )

    def _is_spared(self, strike: Strike, cause: Cause, led_again_s: float) -> bool:
        """The leader could have stayed."""
        if not strike.on_leader:
            return True
        if cause.kind is Kind.ENDS:
            return strike.lasts_s < max(led_again_s, self._sit_out_s)
        return cause.kind is Kind.SPARES

    def _lost(self) -> int:
        return sum(written.is_lost for written in self.world.clients.acknowledged)

    def _mark(self, puts: Mapping[str, tuple[object, int]], gone: tuple[str, ...]) -> None:
        """The leader key goes, or the lead is offered; then it is taken."""
        marks, now = self._marks, self.world.now
        is_vacant = "leader" in gone or ("failover" in puts and "term" not in puts)
        if is_vacant and marks.vacant_at is None:
            marks.vacant_at = now
        if "term" in puts and marks.elected_at is None:
            marks.elected_at = now

    def _run(self, seconds: float) -> None:
        schedule = self.world.ground.schedule
        end = schedule.now + seconds
        while schedule.next_at <= end:
            schedule.step()
            self._observer.look()
        schedule.now = end

    def _run_until(self, holds: Callable[[], bool], within_s: float, look_s: float = LOOK_S) -> bool:
        end = self.world.now + within_s
        while not holds():
            if self.world.now >= end - 1e-9:
                return False
            self._run(min(look_s, end - self.world.now))
        return True


@dataclass(slots=True)
class Marks:
    """When the lead became free, and was taken."""

    vacant_at: float | None = None
    elected_at: float | None = None

    def clear(self) -> None:
        self.vacant_at = self.elected_at = None

    @property
    def election_s(self) -> float | None:
        if self.vacant_at is None or self.elected_at is None:
            return None
        return max(0.0, self.elected_at - self.vacant_at)


def _told(outcome: Outcome) -> str:
    words = f"without a primary for {outcome.down_s:.3f} s"
    if outcome.changes:
        words += ", the leader changed" + (" needlessly" if outcome.needless else "")
    return f"{words}, {outcome.lost_bytes} acknowledged bytes lost"
