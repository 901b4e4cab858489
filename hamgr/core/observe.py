"""`observe`: fold one fact into the state. Pure, total, and the only way a state changes."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from hamgr.core import facts
from hamgr.core.actions import Lane, Promote, TakeLeader
from hamgr.core.cluster import ClusterView
from hamgr.core.facts import Fact
from hamgr.core.outcomes import after_end
from hamgr.core.pipeline import Passage
from hamgr.core.scene import Scene
from hamgr.core.server import Phase, ServerView
from hamgr.core.state import Crash, Lease, Order, State, UnderWay, Vacancy
from hamgr.core.units import Instant, Term, after


def observe(state: State, fact: Fact) -> State:
    """The state after learning `fact`. Facts that are older than what is known change nothing."""
    match fact:
        case facts.ClusterSeen():
            return see_cluster(state, fact.view)
        case facts.Renewed():
            return see_cluster(_renewed(state, fact), fact.view)
        case facts.Probed():
            return _probed(state, fact.server)
        case facts.ServerExited():
            return _exited(state, fact)
        case facts.ActionStarted():
            return _started(state, fact)
        case facts.ActionEnded():
            remaining = tuple(task for task in state.under_way if task.action != fact.action)
            ended = replace(state, under_way=remaining, progress="")
            return after_end(ended, fact)
        case facts.LeaseGranted():
            return replace(state, lease=Lease(fact.lease_id, fact.deadline), store_error="", store_failed_at=None)
        case facts.LeaseAdopted():
            return replace(state, lease=Lease(fact.lease_id, fact.deadline, fact.term))
        case facts.LeaseGone():
            return replace(state, lease=Lease()) if fact.lease_id == state.lease.lease_id else state
        case _:
            return _observe_rest(state, fact)


def _compared(state: State, action: TakeLeader) -> dict[str, str]:
    """The ballots that the transaction compares, as they are kept in the record."""
    ballots = state.cluster.ballots if state.cluster is not None else ()
    revisions = dict(action.ballots)
    return {
        ballot.name: f"{ballot.timeline}/{ballot.lsn}/{ballot.priority}"
        for ballot in ballots
        if revisions.get(ballot.name) == ballot.mod_revision
    }


def _started(state: State, fact: facts.ActionStarted) -> State:
    passage = state.passage
    if isinstance(fact.action, TakeLeader) and passage is not None:
        passage = passage.marked(voted_at=fact.at, ballots=_compared(state, fact.action))
    return replace(state, under_way=(*state.under_way, UnderWay(fact.action, fact.at)), passage=passage)


def _observe_rest(state: State, fact: Fact) -> State:
    match fact:
        case facts.StoreFailed():
            failed_at = state.store_failed_at if state.store_failed_at is not None else fact.at
            return replace(state, store_error=fact.text, store_failed_at=failed_at)
        case facts.ActionProgressed():
            return replace(state, progress=fact.text)
        case facts.Ordered():
            order = Order(fact.order_id, fact.kind, fact.at, fact.options)
            return replace(state, orders=(*state.orders, order))
        case facts.PolicyRead():
            return replace(state, policy=fact.policy, policy_revision=fact.revision, policy_problems=fact.problems)
        case facts.SettingsReread():
            return replace(state, applied_revision=-1)
        case facts.StopOrdered():
            return replace(state, stopping_since=state.stopping_since or fact.at)
        case facts.ReplaceOrdered():
            return replace(state, replace_ordered_at=state.replace_ordered_at or fact.at)
        case facts.GuardSeen():
            return replace(state, guard_alive=fact.alive)
        case facts.WallClockSeen():
            return replace(state, wall_ahead_s=fact.ahead_s)
        case facts.Routed():
            return _routed(state, fact)
        case (
            facts.ClusterSeen()
            | facts.Renewed()
            | facts.Probed()
            | facts.ServerExited()
            | facts.ActionStarted()
            | facts.ActionEnded()
            | facts.LeaseGranted()
            | facts.LeaseAdopted()
            | facts.LeaseGone()
        ):
            raise AssertionError(f"observe answers {fact!r} itself")
        case _:
            assert_never(fact)


def see_cluster(state: State, view: ClusterView) -> State:
    """The newest view, and what follows from it for the lease's term, an election and a finished hand-over."""
    if state.cluster is not None and view.revision < state.cluster.revision:
        return state
    if state.cluster is not None and not view.term_revision:
        # Its key cannot be read: the last known term goes on. No change of leader can be written until it is mended.
        view = replace(view, term=state.cluster.term)
    seen = replace(state, cluster=view, store_error="", store_failed_at=_failing_since(state, view))
    return _with_vacancy(_with_term(seen, view), view, state.cluster)


def _failing_since(state: State, view: ClusterView) -> Instant | None:
    """A view ends a failure of the store, but not the one that let the deadline pass: that is ended by a renewal."""
    deadline = state.lease.deadline
    return state.store_failed_at if deadline is not None and view.seen_at >= deadline else None


def _with_term(state: State, view: ClusterView) -> State:
    me, lease = state.me.name, state.lease
    leads = view.leader is not None and view.leader.name == me and view.leader.lease_id == lease.lease_id
    term = view.term if leads else Term(0)
    if term == lease.term:
        return state
    if term == 0:
        return replace(state, lease=replace(lease, term=term), verified_term=Term(0), passage=None)
    return replace(state, lease=replace(lease, term=term))


def _with_vacancy(state: State, view: ClusterView, before: ClusterView | None) -> State:
    if not view.system_identifier:
        return replace(state, vacancy=None)
    offer = Scene(state, view.seen_at).offer
    is_open = view.leader is None or (offer is not None and offer.holder != state.me.name)
    if not is_open:
        return replace(state, vacancy=None)
    term = Term(view.term + 1)
    if state.vacancy is not None and state.vacancy.term == term:
        return state
    former = before.leader.name if before is not None and before.leader is not None else ""
    open_after = before.revision if before is not None else 0
    vacancy = Vacancy(term, view.seen_at, cold=not state.server.is_replica, open_after=open_after)
    return replace(state, vacancy=vacancy, passage=_passage(state, view, vacancy, former))


def _passage(state: State, view: ClusterView, vacancy: Vacancy, former: str) -> Passage:
    """The start of a record: what is known of the fault at the moment the vacancy is seen."""
    offer = view.request.offer if view.request is not None else None
    if offer is not None and offer.term == view.term:
        elapsed = max(offer.elapsed_s.values(), default=0.0)
        return Passage(
            term=vacancy.term,
            cause=offer.cause,
            former=offer.holder,
            seen_at=vacancy.since,
            fault_at=after(vacancy.since, -elapsed),
            elapsed_s=offer.elapsed_s,
            former_lsn=offer.lsn,
        )
    return Passage(
        term=vacancy.term,
        cause="leader_lost",
        former=former,
        seen_at=vacancy.since,
        fault_at=None if vacancy.cold else state.leader_heard_at,
        former_lsn=view.status.optime or None,
    )


def _renewed(state: State, fact: facts.Renewed) -> State:
    if fact.lease_id != state.lease.lease_id:
        return state
    known = state.lease.deadline
    deadline = fact.deadline if known is None else Instant(max(known, fact.deadline))
    return replace(state, lease=replace(state.lease, deadline=deadline))


ENDING = ("StopServer", "HandOverStop", "Fence", "RestartServer", "Reinitialize", "Promote", "ExamineCrash")


def _probed(state: State, server: ServerView) -> State:
    if server.probed_at < state.server.probed_at:
        return state
    before = state.server
    ended = server.phase in (Phase.STOPPED, Phase.CRASHED)
    if not server.answered and server.identity == before.identity and before.in_recovery and not state.running(Promote):
        # Only a promotion ends recovery: a replica that is slow to answer is not taken for a primary.
        server = replace(server, in_recovery=True)
    if ended and before.phase is Phase.CRASHED:
        server = replace(server, phase=Phase.CRASHED, written_lsn=before.written_lsn)
    elif ended and not state.is_busy(Lane.SERVER):
        unasked = before.phase in (Phase.RUNNING, Phase.STARTING)
        led_before = before.phase is Phase.UNKNOWN and state.lease.term > 0
        if unasked or led_before:
            server = replace(server, phase=Phase.CRASHED, written_lsn=before.written_lsn)
            state = _with_crash(state, server.probed_at)
    age_s = server.last_message_age_s
    return replace(
        state,
        server=server,
        verified_term=state.verified_term if server.is_alive else Term(0),
        leader_heard_at=state.leader_heard_at if age_s is None else after(server.probed_at, -age_s),
        not_streaming_since=_not_streaming_since(state, server),
        diverged=state.diverged and not server.streaming,
        must_clone=state.must_clone and not server.streaming,
    )


def _not_streaming_since(state: State, server: ServerView) -> Instant | None:
    if not server.is_replica or server.streaming:
        return None
    return state.not_streaming_since if state.not_streaming_since is not None else server.probed_at


def _exited(state: State, fact: facts.ServerExited) -> State:
    """The end of the postmaster, by its pidfd. Asked for by us, it is a stop, else a crash."""
    if state.server.identity != fact.identity:
        return state
    asked = any(type(task.action).__name__ in ENDING for task in state.under_way)
    phase = Phase.STOPPED if asked else Phase.CRASHED
    server = replace(
        state.server,
        phase=phase,
        identity=None,
        answered=False,
        in_recovery=None,
        streaming=False,
        walsenders=(),
        probed_at=fact.at,
    )
    state = replace(state, server=server, verified_term=Term(0))
    return state if asked else _with_crash(state, fact.at)


def _with_crash(state: State, at: Instant) -> State:
    return replace(state, crash=Crash(at), verified_term=Term(0))


def _routed(state: State, fact: facts.Routed) -> State:
    passage = state.passage
    if passage is None or passage.term != fact.term or passage.routed_at is not None:
        return state
    return replace(state, passage=passage.marked(routed_at=fact.at))
