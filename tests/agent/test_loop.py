"""One task owns the state: facts in order, actions as tasks, a fence before everything in its lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hamgr.agent import loop as module
from hamgr.agent.chronicle import Chronicle
from hamgr.agent.clock import now
from hamgr.agent.journal import Journal
from hamgr.agent.loop import Loop, Pulse
from hamgr.core.actions import (
    AFTER_PROMOTION,
    Action,
    Checkpoint,
    Exit,
    Fence,
    PutDown,
    StartPrimary,
    StartStandby,
    Upstream,
)
from hamgr.core.decide import Decision
from hamgr.core.facts import (
    ActionEnded,
    ActionProgressed,
    ActionStarted,
    ClusterRecalled,
    ClusterSeen,
    Fact,
    PolicyRead,
)
from hamgr.core.policy import Policy
from hamgr.core.reasons import Code, Reason
from hamgr.core.recording import Event, Kind
from hamgr.core.result import Outcome, Result
from hamgr.core.state import Myself, State
from hamgr.core.units import Instant, Lsn, Term, after
from tests.agent.workbench import until, view

DONE = Outcome(Result.DONE)
LONG_S = 3600.0
STANDBY = StartStandby(Upstream("b"))
CHECKPOINT = Checkpoint(AFTER_PROMOTION)
Deciding = Callable[[State], tuple[Action, ...]]


class Bench:
    """A loop whose decisions are made by the test. Every fact that was folded is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loop_wait_s: float = LONG_S) -> None:
        self.folded: list[Fact] = []
        self.pulses: list[Pulse] = []
        self.carried_out: list[Action] = []
        self.cancelled: list[Action] = []
        self.policy_read: PolicyRead | None = None
        self.decide: Deciding = lambda _state: ()
        self.wake_in_s: float | None = None
        self.answer: Callable[[Action], Any] = lambda _action: None
        state = State(Myself("a"), Policy(loop_wait_s=loop_wait_s))
        monkeypatch.setattr(module, "decide", self._decide)
        monkeypatch.setattr(module, "observe", self._observe(module.observe))
        self.told: list[Event] = []
        chronicle = Chronicle(self.told.append)
        self.loop = Loop(
            state, self._execute, lambda _state: self.policy_read, Journal(), self.pulses.append, chronicle
        )

    def _observe(self, real: Callable[[State, Fact], State]) -> Callable[[State, Fact], State]:
        def observe(state: State, fact: Fact) -> State:
            self.folded.append(fact)
            return real(state, fact)

        return observe

    def _decide(self, state: State, at: Instant) -> Decision:
        wake_at = None if self.wake_in_s is None else after(at, self.wake_in_s)
        return Decision(self.decide(state), Reason(Code.NO_LEASE), "test", wake_at, may_renew=True)

    async def _execute(self, action: Action) -> Outcome:
        """Waits for ever where the test's answer is None."""
        self.carried_out.append(action)
        try:
            outcome = self.answer(action)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome if outcome is not None else await asyncio.Future()
        except asyncio.CancelledError:
            self.cancelled.append(action)
            raise

    async def run(self) -> int:
        async with asyncio.timeout(20):
            return await self.loop.run()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def once(*actions: Action) -> Deciding:
    """These at the first decision, nothing after it."""
    left = list(actions)

    def decide(_state: State) -> tuple[Action, ...]:
        chosen = tuple(left)
        left.clear()
        return chosen

    return decide


async def test_facts_are_folded_in_the_order_in_which_they_were_posted(bench: Bench) -> None:
    facts = [ActionProgressed(str(number)) for number in range(5)]
    for fact in facts:
        bench.loop.post(fact)
    bench.decide = lambda state: (Exit(0),) if state.progress == "4" else ()
    await bench.run()
    assert bench.folded == facts


async def test_the_end_comes_at_once_with_the_code_that_was_decided_and_leaves_no_task(bench: Bench) -> None:
    bench.decide = once(CHECKPOINT, Exit(75))
    assert await bench.run() == 75
    await until(lambda: not bench.loop._tasks, "no task is left")


async def test_without_facts_it_decides_at_every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, loop_wait_s=0.01)
    bench.decide = lambda _state: (Exit(0),) if len(bench.pulses) == 3 else ()
    assert await bench.run() == 0
    assert bench.folded == []


async def test_it_wakes_before_the_tick_when_the_decision_asks_for_it(bench: Bench) -> None:
    bench.wake_in_s = 0.01
    bench.decide = lambda _state: (Exit(0),) if bench.pulses else ()
    assert await bench.run() == 0


async def test_an_action_that_ends_is_known_before_the_next_decision(bench: Bench) -> None:
    begun = once(CHECKPOINT)
    ended: list[Fact] = []

    def decide(state: State) -> tuple[Action, ...]:
        ended[:] = [fact for fact in bench.folded if isinstance(fact, ActionEnded)]
        return begun(state) or ((Exit(0),) if ended else ())

    bench.decide, bench.answer = decide, lambda _action: DONE
    await bench.run()
    assert [type(fact) for fact in bench.folded] == [ActionStarted, ActionEnded]
    assert bench.pulses[0].state.running(Checkpoint) is not None
    assert bench.loop.state.under_way == ()


async def overtaken_by(bench: Bench, action: Action, other: Action) -> None:
    """The loop, which ends once `action` is begun as well, after `other` of its lane and a checkpoint."""
    steps = [(other, CHECKPOINT), (action,)]

    def decide(_state: State) -> tuple[Action, ...]:
        if len(bench.carried_out) == 3:
            return (Exit(0),)
        return steps.pop(0) if steps else ()

    bench.decide, bench.wake_in_s = decide, 0.01
    await bench.run()


async def test_a_fence_overtakes_what_runs_in_its_lane_and_nothing_else(bench: Bench) -> None:
    await overtaken_by(bench, Fence(), STANDBY)
    ends = [fact for fact in bench.folded if isinstance(fact, ActionEnded)]
    assert [(end.action, end.outcome.result, end.outcome.code) for end in ends] == [
        (STANDBY, Result.FAILED, "overtaken")
    ]
    fenced = (
        bench.folded.index(ends[0]),
        bench.folded.index(
            next(fact for fact in bench.folded if isinstance(fact, ActionStarted) and fact.action == Fence())
        ),
    )
    assert fenced[0] < fenced[1], "the lane is free when the fence begins"
    assert bench.cancelled[0] == STANDBY
    assert [task.action for task in bench.loop.state.under_way] == [CHECKPOINT, Fence()]
    assert [(each.kind, each.name) for each in bench.told if each.kind in (Kind.STARTED, Kind.ENDED)] == [
        (Kind.STARTED, "StartStandby"),
        (Kind.STARTED, "Checkpoint"),
        (Kind.ENDED, "StartStandby"),
        (Kind.STARTED, "Fence"),
        (Kind.STARTED, "Exit"),
    ]
    overtaken = next(each for each in bench.told if each.kind is Kind.ENDED)
    assert (overtaken.values["code"], overtaken.values["took_s"] >= 0) == ("overtaken", True)


async def test_putting_the_server_down_overtakes_as_well(bench: Bench) -> None:
    put_down = PutDown(Lsn(0), "disk_failed", Instant(0.0), False)
    await overtaken_by(bench, put_down, StartPrimary(Term(1)))
    assert bench.cancelled[0] == StartPrimary(Term(1))
    assert [task.action for task in bench.loop.state.under_way] == [CHECKPOINT, put_down]


async def test_an_error_that_nobody_expected_ends_the_loop_at_once(bench: Bench) -> None:
    bench.decide, bench.answer = once(CHECKPOINT), lambda _action: ZeroDivisionError("a defect")
    with pytest.raises(ZeroDivisionError):
        await bench.run()


async def test_a_new_view_brings_the_policy_in_force_before_the_next_decision(bench: Bench) -> None:
    bench.policy_read = PolicyRead(Policy(ttl_s=11.0), 10)
    bench.decide = lambda state: (Exit(0),) if state.cluster is not None else ()
    bench.loop.post(ClusterSeen(view()))
    await bench.run()
    assert bench.pulses[-1].state.policy.ttl_s == 11.0


async def test_the_snapshot_counts_changes_of_the_state_only(bench: Bench) -> None:
    seen = view()
    stale = seen._replace(revision=seen.revision - 1)
    bench.loop.post(ClusterSeen(seen))
    bench.loop.post(ClusterSeen(stale))
    bench.decide = lambda state: (Exit(0),) if state.cluster is not None else ()
    await bench.run()
    assert [pulse.changed for pulse in bench.pulses] == [0, 1]
    assert bench.pulses[0].at <= bench.pulses[1].at <= now()
    assert bench.pulses[0].reason


async def test_what_was_posted_binds_the_next_decision_even_when_the_time_to_decide_has_come(bench: Bench) -> None:
    """Else a promise that was just given would be overtaken by a campaign."""
    told: list[str] = []

    def decide(state: State) -> tuple[Action, ...]:
        told.append(state.progress)
        if len(told) > 1:
            return (Exit(0),)
        bench.loop.post(ActionProgressed("promised"))
        return ()

    bench.decide, bench.wake_in_s = decide, 0.0
    await bench.run()
    assert told == ["", "promised"]


async def test_a_remembered_cluster_brings_its_policy_along(bench: Bench) -> None:
    bench.policy_read = PolicyRead(Policy(ttl_s=11.0), 10)
    bench.decide = lambda state: (Exit(0),) if state.policy.ttl_s == 11.0 else ()
    bench.loop.post(ClusterRecalled(view(revision=0)))
    await bench.run()
