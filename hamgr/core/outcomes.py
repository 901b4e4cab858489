"""What is known once an action has ended: one small function per action that leaves a mark on the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hamgr.core import actions
from hamgr.core.actions import AFTER_PROMOTION, GIVING_AWAY, Action
from hamgr.core.cluster import Ballot
from hamgr.core.facts import ActionEnded
from hamgr.core.pipeline import Passage
from hamgr.core.policy import deadline_of
from hamgr.core.result import NOT_SENT, Result
from hamgr.core.route_outcomes import ROUTE_MARKS
from hamgr.core.server import DOWN
from hamgr.core.state import Crash, Failure, HandOver, State, has_lived_shortly
from hamgr.core.units import Instant, Lsn, Term, Timeline


@dataclass(frozen=True, slots=True)
class WalEnd:
    """Value of ExamineCrash, StopServer and HandOverStop: where the WAL on the disk of a stopped server ends.

    `stop_began_at`: when the server was told to stop, which is when its clients lost it.
    """

    timeline: Timeline
    lsn: Lsn | None
    was_clean: bool
    stop_began_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class PeersAnswered:
    """Value of AskPeers. `sent_at`: before the first was asked. `is_alone`: every one of them, at least one, failed for
    a reason that lies on this host.
    """

    sent_at: Instant
    refused: Mapping[str, str] = field(default_factory=dict)
    """Who did not promise, and why not."""
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class Promoted:
    """Value of Promote: the new timeline and where it begins; instants of this host."""

    timeline: Timeline
    lsn: Lsn
    promoted_at: Instant
    writable_at: Instant


def after_end(state: State, fact: ActionEnded) -> State:
    """The state with the failure count kept, and with the mark that the action leaves."""
    state = _with_failures(state, fact)
    mark = MARKS.get(type(fact.action))
    return mark(state, fact) if mark is not None else state


def _with_failures(state: State, fact: ActionEnded) -> State:
    kind = type(fact.action).__name__
    others = tuple(failure for failure in state.failures if failure.kind != kind)
    if fact.outcome.result is Result.DONE:
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


def _is_done(fact: ActionEnded) -> bool:
    return fact.outcome.result is Result.DONE


def _examined(state: State, fact: ActionEnded) -> State:
    if state.crash is None:
        return state
    end = fact.outcome.value
    if not isinstance(end, WalEnd):
        # Something of the dead server may live on: nothing follows until the kill has succeeded.
        return state
    crash = replace(state.crash, examined_at=fact.at, end_timeline=end.timeline, end_lsn=end.lsn)
    return state._replace(crash=crash)


def _put_down(state: State, fact: ActionEnded) -> State:
    """A server that was put down is one that has crashed, and is examined already."""
    action, end = fact.action, fact.outcome.value
    if not isinstance(action, actions.PutDown) or not isinstance(end, WalEnd):
        return state
    crash = Crash(action.since, action.cause, fact.at, end.timeline, end.lsn)
    return state._replace(crash=crash, verified_term=Term(0))


def _peers_answered(state: State, fact: ActionEnded) -> State:
    action, value = fact.action, fact.outcome.value
    state = state._replace(peers_asked_at=fact.at)
    if not isinstance(action, actions.AskPeers) or not isinstance(value, PeersAnswered):
        return state
    alone_since = (state.alone_since or fact.at) if value.is_alone else None
    state = state._replace(alone_since=alone_since)
    if not _is_done(fact) or state.lease.term != action.term:
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
    if not _is_done(fact):
        # Commits may have been acknowledged by it for a moment: who has caught up with what is to be seen anew.
        return state._replace(sync=None)
    return state._replace(sync_given_up=action.rule is None)


def _roster_written(state: State, fact: ActionEnded) -> State:
    """A roster that was written makes void what was sent before it: each compares the one before."""
    if not _is_done(fact) or not isinstance(fact.action, actions.PutRoster):
        return state
    return state._replace(roster_sent=tuple(sorted(fact.action.roster)))


def _stopped_for_hand_over(state: State, fact: ActionEnded) -> State:
    action, end = fact.action, fact.outcome.value
    if not isinstance(action, actions.HandOverStop) or not isinstance(end, WalEnd):
        return state
    hand_over = HandOver(
        request_revision=action.request_revision,
        successor=action.successor,
        began_at=end.stop_began_at if end.stop_began_at is not None else fact.at,
        stopped_at=fact.at,
        end_timeline=end.timeline,
        end_lsn=end.lsn,
        was_clean=end.was_clean,
    )
    return state._replace(hand_over=hand_over)


def _offered(state: State, fact: ActionEnded) -> State:
    if not _is_done(fact):
        return state
    if state.crash is not None:
        return state._replace(crash=replace(state.crash, offered_at=fact.at))
    if state.hand_over is not None:
        return state._replace(hand_over=replace(state.hand_over, offered_at=fact.at))
    return state


def _withdrawn(state: State, fact: ActionEnded) -> State:
    if not _is_done(fact):
        return state
    if state.crash is not None:
        return state._replace(crash=replace(state.crash, declined=True))
    if state.hand_over is not None:
        return state._replace(hand_over=replace(state.hand_over, aborted=True))
    return state


def _started(state: State, fact: ActionEnded) -> State:
    """A server that runs again has no crash to examine, and is no longer what was handed over."""
    if not _is_done(fact):
        state = _unfit_to_stream(state, fact.outcome.code)
        return _start_failed(state, fact.at) if isinstance(fact.action, actions.StartPrimary) else state
    if isinstance(fact.action, actions.StartPrimary) and state.crash is not None:
        short_lives = state.short_lives + 1 if has_lived_shortly(state, state.crash) else 0
        state = state._replace(started_in_place_at=fact.at, short_lives=short_lives)
    return state._replace(crash=_crash_since(state, fact.at), hand_over=None, not_streaming_since=None)


def _crash_since(state: State, at: Instant) -> Crash | None:
    """A server that was started, and is down when it is looked at, has crashed anew. Nobody has watched it yet, so
    nothing else would tell: its tree is to be killed, and the end of its WAL to be read, like any other's.
    """
    return Crash(at) if state.server.phase in DOWN else None


def _start_failed(state: State, at: Instant) -> State:
    """A primary that is down at the end of its start may have accepted connections for a moment, unseen: what is left
    of it is to be killed before anything else is done, above all before the key is given up.
    """
    if state.server.phase not in DOWN:
        return state
    crash = Crash(at, declined=True) if state.crash is None else replace(state.crash, examined_at=None)
    return state._replace(crash=crash)


def _history_checked(state: State, fact: ActionEnded) -> State:
    """Not streaming counts afresh from here: the next look at the history comes after a while, not at once."""
    since = fact.at if state.not_streaming_since is not None else None
    if _is_done(fact) and state.cluster is not None:
        state = state._replace(checked_in=state.cluster.term)
    return _unfit_to_stream(state._replace(diverged=False, not_streaming_since=since), fact.outcome.code)


def _unfit_to_stream(state: State, code: str) -> State:
    """Diverged: to be rewound. The WAL that it needs is gone from the leader: only a clone helps."""
    if code == "diverged":
        return state._replace(diverged=True)
    return state._replace(must_clone=True) if code == "wal_gone" else state


def _mended(state: State, fact: ActionEnded) -> State:
    if _is_done(fact):
        return state._replace(diverged=False, must_clone=False, crash=None)
    is_hopeless = isinstance(fact.action, actions.Rewind) and fact.outcome.code in ("rewind_failed", "wal_gone")
    return state._replace(must_clone=True) if is_hopeless else state


def _checkpointed(state: State, fact: ActionEnded) -> State:
    """Also after a failure: the hand-over goes on, its stop only takes longer."""
    action = fact.action
    if not isinstance(action, actions.Checkpoint):
        return state
    if action.request_revision == AFTER_PROMOTION:
        passage = state.passage.marked(checkpointed=True) if state.passage is not None else None
        return state._replace(passage=passage)
    return state._replace(prepared_for=action.request_revision, prepared_at=fact.at)


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
    if not _is_done(fact) or passage is None or state.cluster is None or passage.promoted_at is not None:
        return state
    return state._replace(passage=passage.marked(elected_at=fact.at))


def _released(state: State, fact: ActionEnded) -> State:
    failed = state.crash is not None or state.failure(actions.StartPrimary.__name__) is not None
    return state._replace(gave_up_at=fact.at) if failed and _is_done(fact) else state


def _promoted(state: State, fact: ActionEnded) -> State:
    action, value = fact.action, fact.outcome.value
    if not _is_done(fact) or not isinstance(action, actions.Promote) or not isinstance(value, Promoted):
        return state
    state = state._replace(verified_term=action.term, verified_at=fact.at, hand_over=None)
    passage = state.passage
    if passage is None or passage.term != action.term or passage.writable_at is not None:
        return state
    marked = passage.marked(
        promoted_at=value.promoted_at,
        writable_at=value.writable_at,
        verified_at=fact.at,
        timeline=value.timeline,
        lsn=value.lsn,
        recorded=False,
    )
    return state._replace(passage=marked)


def _recorded(state: State, fact: ActionEnded) -> State:
    if not _is_done(fact) or state.passage is None or not isinstance(fact.action, actions.PutRecord):
        return state
    record = fact.action.record
    with_routed = record.stage("routed").is_known
    told = state.passage.marked(recorded=True, recorded_routed=with_routed, recorded_notes=len(record.notes))
    return state._replace(passage=told)


def _reasserted(state: State, fact: ActionEnded) -> State:
    if not _is_done(fact):
        return state
    given_away = {kind.__name__ for kind in GIVING_AWAY}
    return state._replace(failures=tuple(f for f in state.failures if f.kind not in given_away))


def _in_history(state: State, fact: ActionEnded) -> State:
    if not _is_done(fact) or state.passage is None:
        return state
    return state._replace(passage=state.passage.marked(in_history=True))


def _order_carried_out(state: State, fact: ActionEnded) -> State:
    """Done or failed: an order is tried once, its giver is told how it ended."""
    action = fact.action
    if not isinstance(action, actions.RestartServer | actions.Reinitialize):
        return state
    left = tuple(order for order in state.orders if order.order_id != action.order_id)
    state = state._replace(orders=left, crash=_crash_since(state, fact.at) if _is_done(fact) else None)
    if not _is_done(fact) and isinstance(action, actions.RestartServer) and action.as_primary_in is not None:
        state = _start_failed(state, fact.at)
    is_new = _is_done(fact) and isinstance(action, actions.Reinitialize)
    return state._replace(diverged=False, must_clone=False) if is_new else state


def _announced(state: State, fact: ActionEnded) -> State:
    """etcd has it, although no view has told so yet: it is not written again and again until one does."""
    action = fact.action
    if not _is_done(fact) or not isinstance(action, actions.PutMember) or state.cluster is None:
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


def _config_applied(state: State, fact: ActionEnded) -> State:
    if not _is_done(fact) or not isinstance(fact.action, actions.ApplyConfig):
        return state
    return state._replace(applied_revision=fact.action.revision)


def _took_initialize(state: State, fact: ActionEnded) -> State:
    if not _is_done(fact) or state.cluster is None:
        return state
    passage = Passage(state.cluster.term, "bootstrap", "", seen_at=fact.at, elected_at=fact.at)
    return state._replace(passage=passage)


FORGET_FAILURES_S = 60.0
"""A failure after so long is the first of another row: its pause must not be the longest one."""

Mark = Callable[[State, ActionEnded], State]

MARKS: dict[type[Action] | Any, Mark] = {
    actions.ExamineCrash: _examined,
    actions.PutDown: _put_down,
    actions.AskPeers: _peers_answered,
    actions.MoveLeader: _moved,
    actions.PutRoster: _roster_written,
    actions.SetSync: _sync_set,
    actions.HandOverStop: _stopped_for_hand_over,
    actions.PutOffer: _offered,
    actions.WithdrawOffer: _withdrawn,
    actions.StartPrimary: _started,
    actions.StartStandby: _started,
    actions.CheckHistory: _history_checked,
    actions.Rewind: _mended,
    actions.Clone: _mended,
    actions.Checkpoint: _checkpointed,
    actions.CastBallot: _voted,
    actions.TakeLeader: _took_lead,
    actions.TakeInitialize: _took_initialize,
    actions.Promote: _promoted,
    actions.ReleaseLeader: _released,
    actions.PutRecord: _recorded,
    actions.PutHistory: _in_history,
    actions.ReattachLeader: _reasserted,
    actions.RestartServer: _order_carried_out,
    actions.Reinitialize: _order_carried_out,
    actions.PutMember: _announced,
    actions.PutStatus: _status_written,
    actions.EnsureSlots: _slots_ensured,
    actions.EnsureSentry: _sentry_checked,
    actions.ApplyConfig: _config_applied,
    **ROUTE_MARKS,
}
