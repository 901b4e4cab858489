"""`decide`: what to do now, from all that is known. One ordered list of rules; the first that applies answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hamgr.core.actions import (
    GIVING_AWAY,
    Action,
    AskPeers,
    Exit,
    Fence,
    HoldPools,
    Lane,
    Promote,
    PushRoute,
    PutDown,
    PutRoster,
    ReleasePools,
    StartPrimary,
)
from hamgr.core.chores import CHORES, LEADERS_CHORES
from hamgr.core.reasons import Code, Reason
from hamgr.core.rules import (
    bootstrap,
    election,
    fence,
    lead,
    lease,
    lifecycle,
    orders,
    pause,
    repair,
    switchover,
)
from hamgr.core.scene import Scene, Verdict
from hamgr.core.state import State
from hamgr.core.units import Instant

Rule = Callable[[Scene], Verdict | None]

RULES: tuple[Rule, ...] = (
    fence.primary_without_right,
    fence.remains,
    fence.deadline_near,
    fence.alone,
    lifecycle.replaced,
    lifecycle.stop_without_store,
    repair.start_without_store,
    repair.leave_without_store,
    lease.need_view,
    lease.need_lease,
    repair.unusable_data,
    repair.foreign_data,
    lease.twin,
    lease.key_on_old_lease,
    lease.retake,
    lifecycle.stop,
    repair.after_restore,
    bootstrap.initialize,
    lead.recall,
    switchover.hand_over,
    lease.reassert,
    lead.promote,
    pause.paused,
    lead.ill,
    lead.crashed,
    lead.stopped,
    lead.starting,
    orders.reinitialize,
    orders.restart,
    lead.steady,
    repair.clone,
    repair.start,
    election.campaign,
    repair.follow,
    repair.settle,
)

AT_ONCE = (Fence, Exit, AskPeers, HoldPools, PushRoute)
"""Actions that failed a moment ago are held back, but not these: each has a pace of its own."""

WORTH_A_NOTE = frozenset(
    {
        Code.UNUSABLE_DATA,
        Code.FOREIGN_DATA,
        Code.TWIN,
        Code.BACKING_OFF,
        Code.NOT_STREAMING,
        Code.DIVERGED,
        Code.REWINDING,
        Code.LAGS_TOO_FAR,
        Code.OLD_TIMELINE,
        Code.ILL,
        Code.ILL_AND_NONE_BETTER,
        Code.NOT_IN_ROSTER,
        Code.NO_WATCHDOG,
        Code.NOT_IN_SYNC,
        Code.WAIT_QUORUM,
    }
)
"""Reasons that last and that people should see in `hamgr list`; the steps of an election are not among them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why. `rule` names the rule that answered. `wake_at`: decide again then at the latest."""

    actions: tuple[Action, ...]
    reason: Reason
    rule: str
    wake_at: Instant | None
    may_renew: bool


def decide(state: State, now: Instant) -> Decision:
    """The decision that follows from `state` at `now` (CLOCK_BOOTTIME). Pure; deciding twice does nothing twice:
    an action is left out while one of its lane is under way (but for what overtakes).
    """
    scene = Scene(state, now)
    rule, verdict = _first_verdict(scene)
    wishes: list[Action] = list(verdict.actions)
    wakes = [verdict.wake_at, fence.stop_at(scene)]
    note = verdict.reason.code.value if verdict.reason.code in WORTH_A_NOTE else ""
    if state.cluster is not None:
        for chore in LEADERS_CHORES if scene.holds_key else CHORES:
            for wish in chore(scene, note):
                if isinstance(wish, float):
                    wakes.append(Instant(wish))
                else:
                    wishes.append(wish)
    may_renew = verdict.may_renew and not lease.has_given_up(scene)
    if may_renew:
        asking, ask_at = lease.peer_renewal(scene)
        wishes += [asking] if asking is not None else []
        wakes.append(ask_at)
    due, retries = _not_backing_off(scene, wishes)
    wakes += retries
    later = [wake for wake in wakes if wake is not None and wake > now]
    return Decision(
        actions=_startable(state, due),
        reason=verdict.reason,
        rule=rule.__name__,
        wake_at=min(later) if later else None,
        may_renew=may_renew,
    )


def _first_verdict(scene: Scene) -> tuple[Rule, Verdict]:
    for rule in RULES:
        verdict = rule(scene)
        if verdict is not None:
            return rule, verdict
    raise AssertionError("the last rule answers always")


def _not_backing_off(scene: Scene, wishes: list[Action]) -> tuple[list[Action], list[Instant]]:
    """The actions that may be tried now, and when those that failed a moment ago may be tried again."""
    if not scene.state.failures:
        return wishes, []
    due: list[Action] = []
    retries: list[Instant] = []
    for action in wishes:
        retry_at = scene.retry_at(type(action))
        if scene.now >= retry_at or isinstance(action, AT_ONCE):
            due.append(action)
        else:
            retries.append(retry_at)
    return due, retries


def _overtakes(state: State, action: Action) -> bool:
    """Fence goes before all. An ill server is put down also while its start or promotion waits for it, which may be
    long: by then its process is there, and none comes after it.
    """
    if isinstance(action, Fence):
        return state.running(Fence) is None
    return isinstance(action, PutDown) and any(state.running(kind) for kind in (StartPrimary, Promote))


def _startable(state: State, wishes: list[Action]) -> tuple[Action, ...]:
    """One action a lane, none in a lane that is busy, but for what overtakes.

    The lead is not given away while something is done with the server: a restart that is under way has it down for a
    moment, and would have it up again as a primary after another leads. Nor are pools released then: they may be held
    for just that. Nobody is entered into the roster while it is asked for its promises: he would not be asked.
    """
    if not wishes:
        return ()
    taken: set[Lane] = {task.action.lane for task in state.under_way}
    asks = Lane.PEERS in taken or any(isinstance(action, AskPeers) for action in wishes)
    chosen: list[Action] = []
    for action in wishes:
        if action.lane in taken and not _overtakes(state, action):
            continue
        if isinstance(action, (*GIVING_AWAY, ReleasePools)) and Lane.SERVER in taken:
            continue
        if isinstance(action, PutRoster) and asks:
            continue
        taken.add(action.lane)
        chosen.append(action)
    return tuple(chosen)
