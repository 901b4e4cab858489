"""What is known once an action on the local server has ended: of its crash, hand-over, history, promotion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hamgr.core import actions
from hamgr.core.actions import AFTER_PROMOTION, BEFORE_STOP, Action, Upstream
from hamgr.core.facts import ActionEnded
from hamgr.core.scene import Scene
from hamgr.core.server import DOWN
from hamgr.core.state import Crash, HandOver, State, has_lived_shortly
from hamgr.core.units import Instant, Lsn, Term, Timeline


@dataclass(frozen=True, slots=True)
class WalEnd:
    """Value of ExamineCrash, PutDown, StopServer and HandOverStop: where the WAL on the disk of a stopped server ends.

    `stop_began_at`: when the server was told to stop, which is when its clients lost it.
    """

    timeline: Timeline
    lsn: Lsn | None
    was_clean: bool
    stop_began_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Promoted:
    """Value of Promote: the new timeline and where it begins; instants of this host."""

    timeline: Timeline
    lsn: Lsn
    promoted_at: Instant
    writable_at: Instant


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
    # Where nobody takes its place it starts anew, and is promoted by as many tries.
    return state.forgiven(actions.Promote)._replace(crash=crash, verified_term=Term(0))


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
    if not fact.is_done:
        return state
    if state.crash is not None:
        return state._replace(crash=replace(state.crash, offered_at=fact.at))
    if state.hand_over is not None:
        return state._replace(hand_over=replace(state.hand_over, offered_at=fact.at))
    return state


def _withdrawn(state: State, fact: ActionEnded) -> State:
    if not fact.is_done:
        return state
    if state.crash is not None:
        return state._replace(crash=replace(state.crash, declined=True))
    # An offer that nobody here remembers was made by the agent before this one.
    planned = state.hand_over or HandOver(0, "", fact.at, fact.at, Timeline(0), None, was_clean=False)
    return state._replace(hand_over=replace(planned, aborted=True))


def _started(state: State, fact: ActionEnded) -> State:
    """A server that runs again has no crash to examine, and is no longer what was handed over."""
    if not fact.is_done:
        state = _unfit_to_stream(state, fact.outcome.code)
        return _start_failed(state, fact.at) if isinstance(fact.action, actions.StartPrimary) else state
    if isinstance(fact.action, actions.StartPrimary) and state.crash is not None:
        short_lives = state.short_lives + 1 if has_lived_shortly(state, state.crash) else 0
        state = state._replace(started_in_place_at=fact.at, short_lives=short_lives)
    started = state._replace(
        crash=_crash_since(state, fact.at), hand_over=None, not_streaming_since=None, stopped_for_lease=False
    )
    return _follows(started, fact)


def _follows(state: State, fact: ActionEnded) -> State:
    """Nobody is followed by choice before it is proven that its history goes on from here."""
    action = fact.action
    if not fact.is_done or not isinstance(action, actions.Follow | actions.StartStandby) or action.upstream is None:
        return state
    term = _term_led_from(state, action.upstream, fact.at)
    return state if term is None else state._replace(checked_in=term)


def _stopped(state: State, _fact: ActionEnded) -> State:
    """A leader's is stopped in this way for want of time alone, or because its host is cut off."""
    return state._replace(stopped_for_lease=state.stopped_for_lease or state.lease.term > 0)


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
    action = fact.action
    term = _term_led_from(state, action.upstream, fact.at) if isinstance(action, actions.CheckHistory) else None
    if fact.is_done and term is not None:
        state = state._replace(checked_in=term)
    return _unfit_to_stream(state._replace(diverged=False, not_streaming_since=since), fact.outcome.code)


def _unfit_to_stream(state: State, code: str) -> State:
    """Diverged: to be rewound. Forked, or WAL that it needs is gone or cannot be read: only a clone helps."""
    if code == "diverged":
        return state._replace(diverged=True)
    return state._replace(must_clone=True) if code in ("forked", "wal_gone", "wal_unreadable") else state


def _term_led_from(state: State, upstream: Upstream, at: Instant) -> Term | None:
    """The present term, if its leader's server is that one; another may have led when the action began."""
    view = state.cluster
    return view.term if view is not None and upstream.host and Scene(state, at).upstream == upstream else None


def _mended(state: State, fact: ActionEnded) -> State:
    action = fact.action
    if fact.is_done and isinstance(action, actions.Rewind | actions.Clone):
        checked_in = _term_led_from(state, action.source, fact.at) or Term(0)
        return state._replace(diverged=False, must_clone=False, crash=None, checked_in=checked_in)
    is_hopeless = isinstance(action, actions.Rewind) and fact.outcome.code in ("rewind_failed", "wal_gone")
    return state._replace(must_clone=True) if is_hopeless else state


def _checkpointed(state: State, fact: ActionEnded) -> State:
    """Also after a failure: the hand-over goes on, its stop only takes longer."""
    action = fact.action
    if not isinstance(action, actions.Checkpoint):
        return state
    if action.request_revision == AFTER_PROMOTION:
        passage = state.passage.marked(checkpointed=True) if state.passage is not None else None
        return state._replace(passage=passage)
    if action.request_revision == BEFORE_STOP:
        return state._replace(is_ready_to_stop=True)
    return state._replace(prepared_for=action.request_revision, prepared_at=fact.at)


def _promoted(state: State, fact: ActionEnded) -> State:
    action, value = fact.action, fact.outcome.value
    if not fact.is_done or not isinstance(action, actions.Promote) or not isinstance(value, Promoted):
        return state
    # What was known of the server's starts and history, and of the synchronous mode, was of another life of it.
    state = state.forgiven(actions.StartPrimary, actions.StartStandby)._replace(
        verified_term=action.term,
        verified_at=fact.at,
        hand_over=None,
        sync_given_up=False,
        must_clone=False,
        diverged=False,
    )
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


def _order_carried_out(state: State, fact: ActionEnded) -> State:
    """Done or failed: an order is tried once, its giver is told how it ended."""
    action = fact.action
    if not isinstance(action, actions.RestartServer | actions.Reinitialize):
        return state
    left = tuple(order for order in state.orders if order.order_id != action.order_id)
    state = state._replace(orders=left, crash=_crash_since(state, fact.at) if fact.is_done else None)
    if not fact.is_done and isinstance(action, actions.RestartServer) and action.as_primary_in is not None:
        state = _start_failed(state, fact.at)
    if not fact.is_done or not isinstance(action, actions.Reinitialize):
        return state
    checked_in = _term_led_from(state, action.source, fact.at) or Term(0)
    return state._replace(diverged=False, must_clone=False, checked_in=checked_in)


SERVER_MARKS: dict[type[Action] | Any, Callable[[State, ActionEnded], State]] = {
    actions.ExamineCrash: _examined,
    actions.PutDown: _put_down,
    actions.HandOverStop: _stopped_for_hand_over,
    actions.StopServer: _stopped,
    actions.PutOffer: _offered,
    actions.WithdrawOffer: _withdrawn,
    actions.StartPrimary: _started,
    actions.StartStandby: _started,
    actions.CheckHistory: _history_checked,
    actions.Follow: _follows,
    actions.Rewind: _mended,
    actions.Clone: _mended,
    actions.Checkpoint: _checkpointed,
    actions.Promote: _promoted,
    actions.RestartServer: _order_carried_out,
    actions.Reinitialize: _order_carried_out,
}
