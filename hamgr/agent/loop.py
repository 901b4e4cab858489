"""The loop: one task owns the state. Facts come in, `observe` folds them, `decide` answers, the executor acts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hamgr.agent.chronicle import Chronicle
from hamgr.agent.clock import now
from hamgr.agent.journal import Journal
from hamgr.core.actions import OVERTAKING, Action, Exit, Lane
from hamgr.core.decide import Decision, decide
from hamgr.core.facts import (
    ActionEnded,
    ActionStarted,
    ClusterRecalled,
    ClusterSeen,
    Fact,
    PolicyRead,
    Renewed,
    StoreReset,
)
from hamgr.core.observe import observe
from hamgr.core.result import Outcome, Result
from hamgr.core.sentences import sentence
from hamgr.core.state import State
from hamgr.core.units import Instant, after

Execute = Callable[[Action], Coroutine[Any, Any, Outcome]]
ReadPolicy = Callable[[State], PolicyRead | None]

OVERTAKEN = Outcome(Result.FAILED, "overtaken", "the server was killed meanwhile")


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the loop hands out after each decision: state, reason, and how long the lease may be renewed on it."""

    state: State
    decision: Decision
    at: Instant
    changed: int

    @property
    def reason(self) -> str:
        return sentence(self.decision.reason)


class Loop:
    """Owner of the state. `post` may be called from this thread only; other threads use call_soon_threadsafe."""

    def __init__(
        self,
        state: State,
        execute: Execute,
        read_policy: ReadPolicy,
        journal: Journal,
        on_pulse: Callable[[Pulse], None],
        chronicle: Chronicle | None = None,
    ) -> None:
        self.state = state
        self._execute = execute
        self._read_policy = read_policy
        self._journal = journal
        self._on_pulse = on_pulse
        self._chronicle = chronicle if chronicle is not None else Chronicle(lambda _event: None)
        self._facts: asyncio.Queue[Fact | None] = asyncio.Queue()
        # None: nothing was learned, but the loop must not sleep on.
        self._tasks: dict[asyncio.Task[None], Action] = {}
        self._changed = 0
        self._exit_code: int | None = None
        self._bug: BaseException | None = None

    def post(self, fact: Fact) -> None:
        """Let the loop know. Facts are folded in the order in which they were posted."""
        self._facts.put_nowait(fact)

    async def run(self) -> int:
        """Decide until an Exit is decided; its code. Tasks still running then are cancelled.

        An error that no call expected is raised here: the process ends, the guard starts a fresh one, which adopts
        server and lease; the deadline stands meanwhile.
        """
        try:
            while self._exit_code is None:
                decision = self._decide()
                if self._exit_code is None:
                    await self._wait_for_facts(decision.wake_at)
                if self._bug is not None:
                    raise self._bug
            return self._exit_code
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    def _decide(self) -> Decision:
        at = now()
        decision = decide(self.state, at)
        self._journal.decided(self.state, decision, at)
        self._chronicle.decided(self.state, decision, at)
        for action in decision.actions:
            self._start(action, at)
        self._on_pulse(Pulse(self.state, decision, at, self._changed))
        return decision

    async def _wait_for_facts(self, wake_at: Instant | None) -> None:
        """Return when something was learned, or at `wake_at`, or at the tick, whichever comes first."""
        at = now()
        until = after(at, self.state.policy.loop_wait_s)
        if wake_at is not None:
            until = Instant(min(until, wake_at))
        # Not wait_for: before Python 3.12 it could swallow the cancellation of this task.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - at)):
                self._fold(await self._facts.get())
        # Also when the wait timed out: what has been posted, such as a promise just given, binds the next decision.
        while not self._facts.empty():
            self._fold(self._facts.get_nowait())

    def _fold(self, fact: Fact | None) -> None:
        if fact is None:
            return
        before = self.state
        self.state = observe(before, fact)
        if isinstance(fact, ClusterSeen | Renewed | ClusterRecalled | StoreReset):
            policy = self._read_policy(self.state)
            if policy is not None:
                self.state = observe(self.state, policy)
        if self.state is not before:
            self._changed += 1
            self._chronicle.folded(before, fact, self.state)

    def _start(self, action: Action, at: Instant) -> None:
        if isinstance(action, OVERTAKING):
            self._overtake(Lane.SERVER)
        self._chronicle.started(action, at)
        if isinstance(action, Exit):
            self._exit_code = action.code
            return
        self._fold(ActionStarted(action, at))
        task = asyncio.create_task(self._carry_out(action, at))
        self._tasks[task] = action
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self._bug = task.exception()
            self._facts.put_nowait(None)

    def _overtake(self, lane: Lane) -> None:
        """Cancel what runs in the lane; its end is known at once, so that nothing waits for it."""
        for task, action in tuple(self._tasks.items()):
            if action.lane is lane:
                task.cancel()
                at = now()
                began_at = next((each.since for each in self.state.under_way if each.action == action), at)
                self._chronicle.ended(action, OVERTAKEN, began_at, at)
                self._fold(ActionEnded(action, OVERTAKEN, at))

    async def _carry_out(self, action: Action, began_at: Instant) -> None:
        outcome = await self._execute(action)
        at = now()
        self._journal.ended(action, outcome, began_at, at)
        self._chronicle.ended(action, outcome, began_at, at)
        self.post(ActionEnded(action, outcome, at))
