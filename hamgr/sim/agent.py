"""One member's agent: the real observe and decide, as hamgr/agent/loop.py drives them, on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hamgr.core import actions, facts
from hamgr.core.actions import Action, Lane
from hamgr.core.decide import Decision, decide
from hamgr.core.facts import Fact
from hamgr.core.observe import observe
from hamgr.core.pipeline import Record
from hamgr.core.policy import Policy
from hamgr.core.result import Outcome, Result
from hamgr.core.routes import Routes
from hamgr.core.scene import Scene
from hamgr.core.state import Myself, State
from hamgr.core.units import Instant, Term, after
from hamgr.sim.clock import HostClock
from hamgr.sim.ground import Ground, Violation
from hamgr.sim.guard import Guard
from hamgr.sim.page import Page
from hamgr.sim.portrait import view_of
from hamgr.sim.postgres import Server
from hamgr.sim.process import Process
from hamgr.sim.replication import Replication
from hamgr.sim.steps import Drive, Steps
from hamgr.sim.trace import Ended

PERMIT_TICKS = 2.5
STUCK_LOOK_S = 0.05
"""How often what waits for a stuck server looks whether it goes on."""
HOT_LOOP = 30
"""So many starts of one kind of action by one member within a second are a loop without back-off."""
OVERTAKEN = Outcome(Result.FAILED, "overtaken", "the server was killed meanwhile")


@dataclass(slots=True)
class Upset:
    """How a story disturbs the next actions of one kind: 'lost reply', 'fail' or 'hold'."""

    how: str
    code: str = ""
    left: int = 1_000_000


@dataclass(slots=True)
class Front:
    """A pool and a load balancer through which clients come. What they do not know of servers is not modelled."""

    is_held: bool = False
    """The pool is paused: clients wait."""
    is_busy: bool = False
    """A transaction does not end: the pool cannot be held in time."""
    answers: bool = True
    routed_to: str = ""
    """Whom the load balancer was last told of."""
    targets: dict[str, str] = field(default_factory=dict)
    """Host -> the member that the target file there names."""


@dataclass(slots=True)
class Shared:
    """What all agents of a world have in common beside the ground."""

    replication: Replication
    agents: dict[str, Agent] = field(default_factory=dict)
    upsets: dict[tuple[str, str], Upset] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    kept_aside: list[str] = field(default_factory=list)
    front: Front = field(default_factory=Front)
    routes: Routes = field(default_factory=Routes)
    """What every member's file names of it."""
    systems: int = 0
    on_start: Callable[[Agent, Action], None] = lambda _agent, _action: None
    """Told of every action before it is begun."""
    on_record: Callable[[Record], None] = lambda _record: None
    on_thaw: Callable[[Server], None] = lambda _server: None
    """Told of a server whose host stood still and goes on."""


@dataclass(slots=True, eq=False)
class Task:
    """An action under way. `drive` is None while a story holds it."""

    action: Action
    drive: Drive | None = None


class Agent(Process):
    """The agent's process. What outlives it (page, server) belongs to the host."""

    def __init__(
        self,
        ground: Ground,
        shared: Shared,
        host: tuple[HostClock, Page, Guard, Server],
        me: Myself,
        policy: Policy,
        calls: dict[type, Callable[[Agent, Any], Steps]],
    ) -> None:
        super().__init__(ground)
        self.ground = ground
        self.shared = shared
        self.clock, self.page, self.guard, self.server = host
        self.name = me.name
        self.file_policy = policy
        """What the configuration file says, in force until etcd was read."""
        self.calls = calls
        self.state = State(me, policy=policy)
        self.inbox: list[Fact] = []
        self.tasks: list[Task] = []
        self.decision: Decision | None = None
        self.permit_until = Instant(0.0)
        self.exit_code: int | None = None
        self.is_stopped_in_order = False
        self.said: list[tuple[float, str]] = []
        self.started: list[tuple[float, Action]] = []
        self.on_exit: Callable[[Agent], None] = lambda _agent: None
        self._is_due = False
        self._wakes_at: float | None = None

    @property
    def is_alive(self) -> bool:
        return self.is_running

    @property
    def lease_id(self) -> int:
        return self.state.lease.lease_id

    def clock_now(self) -> Instant:
        """This host's boot clock."""
        return self.clock.read(self.ground.now)

    # -- life --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A fresh agent on the host: it adopts what the page still holds."""
        self.launch()
        self.state = State(replace(self.state.me, routes=self.shared.routes), policy=self.file_policy)
        self.inbox, self.tasks, self.decision = [], [], None
        self.exit_code, self.is_stopped_in_order = None, False
        self.permit_until = Instant(0.0)
        self._is_due, self._wakes_at = False, None
        self.page.meet_agent()
        for fact in self._inherited():
            self.post(fact)
        self._tick()

    def _inherited(self) -> list[Fact]:
        page, now = self.page, self.clock_now()
        inherited: list[Fact] = []
        if page.is_new:
            page.is_new = False
            page.promise("", after(now, self.file_policy.ttl_s))
            inherited.append(facts.MemoryLost(now))
        if page.lease_id and page.deadline is not None and now < page.deadline:
            term = page.term if page.armed else Term(0)
            tried = facts.LeaseTried(page.tried_id, page.tried_deadline) if page.tried_id else None
            inherited.append(facts.LeaseAdopted(page.lease_id, page.deadline, term, tried))
        if page.promised_until is not None and now < page.promised_until:
            inherited.append(facts.Promised(page.promised_to, page.promised_until))
        return inherited

    def kill(self) -> None:
        """SIGKILL, or the end of the host."""
        self.end()
        self.inbox, self.tasks = [], []

    # -- facts and decisions -----------------------------------------------------------------------------------

    def post(self, fact: Fact) -> None:
        """Let the loop know; it is folded and decided on at this very moment, after what else happens in it."""
        if not self.is_running:
            return
        self.inbox.append(fact)
        if not self._is_due:
            self._is_due = True
            self.at(self.ground.now, self._think)

    def probe(self) -> None:
        """Look at the server and post what is seen."""
        standbys = self.shared.replication.standbys_of(self.server) if not self.server.in_recovery else []
        self.post(facts.Probed(view_of(self.server, self.clock_now(), standbys)))

    def _tick(self) -> None:
        self._look(self.ground.now)

    def _look(self, began: float) -> None:
        """A server that gives no answer is waited for a while before it is told; the next look comes after that."""
        now = self.ground.now
        if self.server.is_stuck and now < began + self.ground.pace.probe_s:
            self.at(now + STUCK_LOOK_S, lambda: self._look(began))
            return
        self.probe()
        self.at(max(now, began + self.state.policy.loop_wait_s), self._tick)

    def _think(self) -> None:
        self._is_due = False
        while self.inbox:
            inbox, self.inbox = self.inbox, []
            for fact in inbox:
                self.fold(fact)
        self._decide()

    def fold(self, fact: Fact) -> None:
        """The fact is part of the state."""
        self.state = observe(self.state, fact)
        if isinstance(fact, facts.ClusterSeen | facts.Renewed):
            view = self.state.cluster
            if view is not None and view.config_revision != self.state.policy_revision and view.config_revision:
                values = view.config.values if view.config is not None else None
                policy = Policy(**values) if values is not None else self.state.policy
                self.state = observe(self.state, facts.PolicyRead(policy, view.config_revision))

    def _decide(self) -> None:
        now = self.clock_now()
        decision = decide(self.state, now)
        self._tell(decision)
        self.decision = decision
        lasts_s = PERMIT_TICKS * max(self.state.policy.loop_wait_s, 0.2)
        self.permit_until = after(now, lasts_s) if decision.may_renew else Instant(0.0)
        if self.lease_id and self.state.lease.tried is None and self.state.running(actions.MoveLeader) is None:
            self.page.lift_limit(self.lease_id)
        for action in decision.actions:
            self._start(action, now)
            if not self.is_running:
                return
        if decision.wake_at is not None:
            self._wake(self.clock.moment_of(decision.wake_at))

    def _tell(self, decision: Decision) -> None:
        before = self.decision
        if before is None or (before.rule, before.reason.code) != (decision.rule, decision.reason.code):
            self.said.append((self.ground.now, f"{decision.rule}: {decision.reason.code.value}"))
            self.ground.trace.add(self.ground.now, self.name, decision)

    def _wake(self, moment: float) -> None:
        if self._wakes_at is None or moment < self._wakes_at:
            self._wakes_at = moment
            self.at(moment, self._woken)

    def _woken(self) -> None:
        if self._wakes_at is None or self.ground.now < self._wakes_at:
            return
        self._wakes_at = None
        wake_at = self.decision.wake_at if self.decision is not None else None
        if wake_at is None or self._is_due:
            return
        if self.clock_now() >= wake_at:
            self._decide()
        else:
            self._wake(self.clock.moment_of(wake_at))

    # -- actions -----------------------------------------------------------------------------------------------

    def _start(self, action: Action, now: Instant) -> None:
        self._check_hot_loop(action)
        self.started.append((self.ground.now, action))
        self.ground.trace.add(self.ground.now, self.name, action)
        self.shared.on_start(self, action)
        if isinstance(action, actions.Exit):
            self.exit_code = action.code
            self.is_stopped_in_order = action.code == 0
            self.kill()
            self.on_exit(self)
            return
        if isinstance(action, actions.OVERTAKING):
            self._overtake(now)
        self.fold(facts.ActionStarted(action, now))
        self._begin(action)

    def _begin(self, action: Action) -> None:
        upset = self.shared.upsets.get((self.name, type(action).__name__))
        task = Task(action)
        self.tasks.append(task)
        if upset is not None and upset.how == "hold":
            return
        self.carry_out(task)

    def carry_out(self, task: Task) -> None:
        """The action is on its way."""
        upset = self.shared.upsets.get((self.name, type(task.action).__name__))
        is_upset = upset is not None and upset.how != "hold" and upset.left > 0
        if upset is not None and is_upset:
            upset.left -= 1
            if upset.how == "fail":
                outcome = Outcome(Result.FAILED, upset.code or "failed", "as the story wants it")
                self.at(self.ground.later(self.ground.pace.to_etcd), lambda: self._end_task(task, outcome, False))
                return
        steps = self.calls[type(task.action)](self, task.action)
        is_muted = is_upset and upset is not None and upset.how == "lost reply"
        task.drive = Drive(
            steps, lambda: self.ground.now, self.at, lambda outcome: self._end_task(task, outcome, is_muted)
        )
        task.drive.advance()

    def _end_task(self, task: Task, outcome: Outcome, is_muted: bool) -> None:
        if task not in self.tasks:
            return
        self.tasks.remove(task)
        if is_muted:
            self.inbox = [fact for fact in self.inbox if not isinstance(fact, facts.ClusterSeen)]
            outcome = Outcome(Result.UNKNOWN, "unknown", "the reply was lost")
        if task.action.lane in (Lane.SERVER, Lane.SYNC, Lane.SENTRY):
            self.probe()
        self.ground.trace.add(self.ground.now, self.name, Ended(task.action, outcome))
        self.post(facts.ActionEnded(task.action, outcome, self.clock_now()))

    def _overtake(self, now: Instant) -> None:
        for task in [task for task in self.tasks if task.action.lane is Lane.SERVER]:
            self.tasks.remove(task)
            if task.drive is not None:
                task.drive.cancel()
            self.fold(facts.ActionEnded(task.action, OVERTAKEN, now))

    def _check_hot_loop(self, action: Action) -> None:
        recent = 0
        for at, each in reversed(self.started):
            if at <= self.ground.now - 1.0:
                break
            recent += type(each) is type(action)
        if recent >= HOT_LOOP:
            raise Violation(f"hot loop: {self.name} starts {action} again and again ({self.said[-1][1]})")

    # -- what calls ask of it ----------------------------------------------------------------------------------

    def deadline_in(self, term: Term) -> Instant | None:
        """The deadline if this member leads in that term now, else None: checked again right before acting."""
        scene = Scene(self.state, self.clock_now())
        return scene.deadline if scene.leads and self.state.lease.term == term else None
