"""What is known once an action on poolers or load balancers has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hamgr.core.facts import ActionEnded
from hamgr.core.route_actions import HoldPools, PointPools, PushRoute, ReleasePools
from hamgr.core.state import State
from hamgr.core.units import Instant

MAX_NOTES = 20
"""In one record. What goes wrong again and again is noted once anyway."""


@dataclass(frozen=True, slots=True)
class RouteNotes:
    """Value of HoldPools, ReleasePools and PushRoute: sentences for the record of a change of leader.

    `confirmed`: how many load balancers sent clients here when they were told to.
    """

    lines: tuple[str, ...] = ()
    confirmed: int = 0


def _lines(fact: ActionEnded) -> tuple[str, ...]:
    value = fact.outcome.value
    if isinstance(value, RouteNotes):
        return value.lines
    return (fact.outcome.text,) if not fact.is_done and fact.outcome.text else ()


def _with_notes(state: State, verified_at: Instant, lines: tuple[str, ...]) -> State:
    """The record of the change that ended with that verification has these, too."""
    passage = state.passage
    if passage is None or passage.verified_at != verified_at:
        return state
    new = tuple(line for line in dict.fromkeys(lines) if line not in passage.notes)
    notes = (*passage.notes, *new)[:MAX_NOTES]
    return state if notes == passage.notes else state._replace(passage=passage.marked(notes=notes))


def _held(state: State, fact: ActionEnded) -> State:
    """Also after a failure: the hand-over goes on, for clients of that pool as one without it.

    The release that will follow does not wait because an earlier one failed, of a pool that is gone, say.
    """
    if not isinstance(fact.action, HoldPools):
        return state
    failures = tuple(each for each in state.failures if each.kind != ReleasePools.__name__)
    held_for = fact.action.request_revision
    return state._replace(held_for=held_for, hold_notes=_lines(fact), released_at=None, failures=failures)


def _released(state: State, fact: ActionEnded) -> State:
    if not isinstance(fact.action, ReleasePools):
        return state
    if fact.is_done:
        state = state._replace(released_at=fact.action.verified_at)
    return _with_notes(state, fact.action.verified_at, _lines(fact))


def _pushed(state: State, fact: ActionEnded) -> State:
    """Once for each verification, whatever came of it: the balancers' own checks set right what was missed."""
    action, value = fact.action, fact.outcome.value
    if not isinstance(action, PushRoute):
        return state
    state = _with_notes(state._replace(pushed_at=action.verified_at), action.verified_at, _lines(fact))
    passage = state.passage
    if not isinstance(value, RouteNotes) or not value.confirmed or passage is None:
        return state
    is_first = passage.verified_at == action.verified_at and passage.routed_at is None
    return state._replace(passage=passage.marked(routed_at=fact.at)) if is_first else state


def _pointed(state: State, fact: ActionEnded) -> State:
    if not isinstance(fact.action, PointPools) or not fact.is_done:
        return state
    return state._replace(pointed_at=fact.action.target)


Mark = Callable[[State, ActionEnded], State]

ROUTE_MARKS: dict[type, Mark] = {
    HoldPools: _held,
    ReleasePools: _released,
    PushRoute: _pushed,
    PointPools: _pointed,
}
