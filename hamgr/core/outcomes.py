"""What is known once an action has ended: one small function per action that leaves a mark on the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hamgr.core import actions
from hamgr.core.actions import GIVING_AWAY, Action
from hamgr.core.cluster import Ballot
from hamgr.core.facts import ActionEnded
from hamgr.core.pipeline import Passage
from hamgr.core.policy import deadline_of
from hamgr.core.result import NOT_SENT, Result
from hamgr.core.route_outcomes import ROUTE_MARKS
from hamgr.core.server import Birth
from hamgr.core.server_outcomes import SERVER_MARKS
from hamgr.core.state import Failure, State
from hamgr.core.units import Instant


@dataclass(frozen=True, slots=True)
class PeersAnswered:
    """Value of AskPeers. `sent_at`: before the first was asked. `is_alone`: every one of them, at least one, failed for
    a reason that lies on this host.
    """

    sent_at: Instant
    refused: Mapping[str, str] = field(default_factory=dict)
    """Who did not promise, and why not."""
    is_alone: bool = False


def after_end(state: State, fact: ActionEnded) -> State:
    """The state with the failure count kept, and with the mark that the action leaves."""
    state = _with_failures(state, fact)
    mark = MARKS.get(type(fact.action))
    return mark(state, fact) if mark is not None else state


def _with_failures(state: State, fact: ActionEnded) -> State:
    kind = type(fact.action).__name__
    others = tuple(failure for failure in state.failures if failure.kind != kind)
    if fact.is_done:
        return state._replace(failures=others)
    before = state.failure(kind)
    is_in_a_row = before is not None and fact.at - before.at < FORGET_FAILURES_S
    count = before.count + 1 if before is not None and is_in_a_row else 1
    code = fact.outcome.code
    if code == NOT_SENT and before is not None:
        # What was sent before may take effect yet.
        code = before.code
    failure = Failure(kind, code, fact.outcome.text, count, fact.at)
    return state._replace(failures=(*others, failure))


def _peers_answered(state: State, fact: ActionEnded) -> State:
    action, value = fact.action, fact.outcome.value
    state = state._replace(peers_asked_at=fact.at)
    if not isinstance(action, actions.AskPeers) or not isinstance(value, PeersAnswered):
        return state
    alone_since = (state.alone_since or fact.at) if value.is_alone else None
    state = state._replace(alone_since=alone_since)
    if not fact.is_done or state.lease.term != action.term:
        return state
    deadline = deadline_of(value.sent_at, action.ttl_s)
    known = state.lease.peer_deadline
    deadline = deadline if known is None else max(known, deadline)
    return state._replace(lease=replace(state.lease, peer_deadline=deadline, promised_at=value.sent_at))


def _moved(state: State, fact: ActionEnded) -> State:
    """Refused: the key was written since, as a view tells, or the new lease is gone. It cannot take effect any more."""
    is_void = fact.outcome.result is Result.REFUSED
    return state._replace(lease=replace(state.lease, tried=None)) if is_void else state


def _sync_set(state: State, fact: ActionEnded) -> State:
    action = fact.action
    if not isinstance(action, actions.SetSync):
        return state
    if not fact.is_done:
        # Commits may have been acknowledged by it for a moment: who has caught up with what is to be seen anew.
        return state._replace(sync=None)
    return state._replace(sync_given_up=action.rule is None)


def _roster_written(state: State, fact: ActionEnded) -> State:
    """A roster that was written makes void what was sent before it: each compares the one before."""
    if not fact.is_done or not isinstance(fact.action, actions.PutRoster):
        return state
    return state._replace(roster_sent=tuple(sorted(fact.action.roster)))


def _voted(state: State, fact: ActionEnded) -> State:
    ballot = fact.outcome.value
    if not isinstance(ballot, Ballot) or state.cluster is None:
        return state
    ballots = tuple(b for b in state.cluster.ballots if b.name != ballot.name)
    # A view on its way that is older than the ballot would hide it, and have it cast again.
    revision = max(state.cluster.revision, ballot.mod_revision)
    state = state._replace(cluster=state.cluster._replace(ballots=(*ballots, ballot), revision=revision))
    if state.vacancy is not None and state.vacancy.term == ballot.term:
        state = state._replace(vacancy=replace(state.vacancy, voted_at=fact.at))
    if state.passage is not None:
        state = state._replace(passage=state.passage.marked(own_lsn=ballot.lsn))
    return state


def _took_lead(state: State, fact: ActionEnded) -> State:
    """The executor's value is the view read after the transaction; `observe` has folded it in already."""
    passage = state.passage
    if not fact.is_done or passage is None or state.cluster is None or passage.promoted_at is not None:
        return state
    return state._replace(passage=passage.marked(elected_at=fact.at))


def _released(state: State, fact: ActionEnded) -> State:
    failed = state.crash is not None or state.failure(actions.StartPrimary.__name__) is not None
    return state._replace(gave_up_at=fact.at) if failed and fact.is_done else state


def _recorded(state: State, fact: ActionEnded) -> State:
    if not fact.is_done or state.passage is None or not isinstance(fact.action, actions.PutRecord):
        return state
    record = fact.action.record
    with_routed = record.stage("routed").is_known
    told = state.passage.marked(recorded=True, recorded_routed=with_routed, recorded_notes=len(record.notes))
    return state._replace(passage=told)


def _reasserted(state: State, fact: ActionEnded) -> State:
    if not fact.is_done:
        return state
    given_away = {kind.__name__ for kind in GIVING_AWAY}
    return state._replace(failures=tuple(f for f in state.failures if f.kind not in given_away))


def _in_history(state: State, fact: ActionEnded) -> State:
    if not fact.is_done or state.passage is None:
        return state
    return state._replace(passage=state.passage.marked(in_history=True))


def _announced(state: State, fact: ActionEnded) -> State:
    """etcd has it, although no view has told so yet: it is not written again and again until one does."""
    action = fact.action
    if not fact.is_done or not isinstance(action, actions.PutMember) or state.cluster is None:
        return state
    member = action.member._replace(lease_id=state.lease.lease_id)
    others = tuple(each for each in state.cluster.members if each.name != member.name)
    members = tuple(sorted((*others, member), key=lambda each: each.name))
    return state._replace(cluster=state.cluster._replace(members=members))


def _status_written(state: State, fact: ActionEnded) -> State:
    return state._replace(status_written_at=fact.at)


def _slots_ensured(state: State, fact: ActionEnded) -> State:
    return state._replace(slots_ensured_at=fact.at)


def _sentry_checked(state: State, fact: ActionEnded) -> State:
    return state._replace(sentry_checked_at=fact.at)


def _birth_noted(state: State, fact: ActionEnded) -> State:
    """Known at once; what has become of the directory of a server that has ended meanwhile, a look at it tells."""
    noted = fact.outcome.value
    if not fact.is_done or not isinstance(noted, Birth) or not state.server.is_alive:
        return state
    return state._replace(server=replace(state.server, birth=noted))


def _config_applied(state: State, fact: ActionEnded) -> State:
    if not fact.is_done or not isinstance(fact.action, actions.ApplyConfig):
        return state
    return state._replace(applied_revision=fact.action.revision)


def _took_initialize(state: State, fact: ActionEnded) -> State:
    if not fact.is_done or state.cluster is None:
        return state
    passage = Passage(state.cluster.term, "bootstrap", "", seen_at=fact.at, elected_at=fact.at)
    return state._replace(passage=passage)


FORGET_FAILURES_S = 60.0
"""A failure after so long is the first of another row: its pause must not be the longest one."""

Mark = Callable[[State, ActionEnded], State]

MARKS: dict[type[Action] | Any, Mark] = {
    actions.AskPeers: _peers_answered,
    actions.MoveLeader: _moved,
    actions.PutRoster: _roster_written,
    actions.SetSync: _sync_set,
    actions.CastBallot: _voted,
    actions.TakeLeader: _took_lead,
    actions.TakeInitialize: _took_initialize,
    actions.ReleaseLeader: _released,
    actions.PutRecord: _recorded,
    actions.PutHistory: _in_history,
    actions.ReattachLeader: _reasserted,
    actions.PutMember: _announced,
    actions.PutStatus: _status_written,
    actions.EnsureSlots: _slots_ensured,
    actions.EnsureSentry: _sentry_checked,
    actions.NoteBirth: _birth_noted,
    actions.ApplyConfig: _config_applied,
    **SERVER_MARKS,
    **ROUTE_MARKS,
}
