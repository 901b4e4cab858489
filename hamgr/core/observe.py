"""`observe`: fold one fact into the state. Pure, total, and the only way a state changes."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from hamgr.core import births, facts, leases, logical, restored
from hamgr.core.actions import TAKING_DOWN, Lane, Promote, PutRoster, TakeLeader
from hamgr.core.cluster import ClusterView
from hamgr.core.facts import Fact, HostFact
from hamgr.core.order import OnTimeline, have_forked
from hamgr.core.outcomes import after_end
from hamgr.core.pipeline import Passage
from hamgr.core.scene import Scene
from hamgr.core.server import DOWN, Illness, Phase, ServerView
from hamgr.core.state import Crash, Order, State, UnderWay, Vacancy
from hamgr.core.synchronous import sync_in_force
from hamgr.core.units import Instant, Lsn, Term, after


def observe(state: State, fact: Fact) -> State:
    """The state after learning `fact`. Facts that are older than what is known change nothing."""
    match fact:
        case facts.ClusterSeen():
            return see_cluster(state, fact.view)
        case facts.ClusterRecalled():
            return see_cluster(state, fact.view)._replace(is_recalled=True) if state.cluster is None else state
        case facts.Renewed():
            return see_cluster(leases.renewed(state, fact), fact.view)
        case facts.Probed():
            return _probed(state, fact.server)
        case facts.ServerExited():
            return _exited(state, fact)
        case facts.ActionStarted():
            return _started(state, fact)
        case facts.ActionEnded():
            remaining = tuple(task for task in state.under_way if task.action != fact.action)
            ended = state._replace(under_way=remaining, progress="")
            return after_end(ended, fact)
        case facts.LeaseGranted():
            return leases.granted(state, fact)
        case facts.LeaseTried():
            return leases.tried(state, fact)
        case facts.LeaseAdopted():
            return leases.adopted(state, fact)
        case facts.LeaseGone():
            return leases.gone(state, fact)
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
    if isinstance(fact.action, PutRoster):
        state = state._replace(roster_sent=tuple(sorted({*state.roster_sent, *fact.action.roster})))
    return state._replace(under_way=(*state.under_way, UnderWay(fact.action, fact.at)), passage=passage)


def _observe_rest(state: State, fact: Fact) -> State:
    match fact:
        case facts.StoreReset():
            return _reset(state, fact)
        case facts.StoreFailed():
            failed_at = state.store_failed_at if state.store_failed_at is not None else fact.at
            return state._replace(store_error=fact.text, store_failed_at=failed_at)
        case facts.ActionProgressed():
            return state._replace(progress=fact.text)
        case facts.Ordered():
            order = Order(fact.order_id, fact.kind, fact.at, fact.options)
            return state._replace(orders=(*state.orders, order))
        case facts.PolicyRead():
            return state._replace(
                policy=fact.policy,
                policy_revision=fact.revision,
                policy_problems=fact.problems,
                policy_is_broken=fact.is_broken,
            )
        case facts.SettingsReread():
            routes = state.me.routes if fact.routes is None else fact.routes
            me = replace(state.me, routes=routes, tags=state.me.tags if fact.tags is None else fact.tags)
            return state._replace(me=me, applied_revision=-1, pointed_at=None)
        case facts.StopOrdered():
            return state._replace(stopping_since=state.stopping_since or fact.at)
        case facts.ReplaceOrdered():
            return state._replace(replace_ordered_at=state.replace_ordered_at or fact.at)
        case facts.Routed():
            return _routed(state, fact)
        case (
            facts.ClusterSeen()
            | facts.ClusterRecalled()
            | facts.Renewed()
            | facts.Probed()
            | facts.ServerExited()
            | facts.ActionStarted()
            | facts.ActionEnded()
            | facts.LeaseGranted()
            | facts.LeaseTried()
            | facts.LeaseAdopted()
            | facts.LeaseGone()
        ):
            raise AssertionError(f"observe answers {fact!r} itself")
        case _:
            return _observe_host(state, fact)


def _observe_host(state: State, fact: HostFact) -> State:
    match fact:
        case facts.GuardSeen():
            return state._replace(guard_alive=fact.alive, guard_problem=fact.problem)
        case facts.WallClockSeen():
            return state._replace(wall_ahead_s=fact.ahead_s)
        case facts.VitalChecked():
            return _vital_checked(state, fact)
        case facts.Promised():
            return _promised(state, fact)
        case facts.MemoryLost():
            return state._replace(memory_lost_at=fact.at)
        case _:
            assert_never(fact)


def see_cluster(state: State, view: ClusterView) -> State:
    """The newest view, and what follows from it for the lease's term, an election and a finished hand-over."""
    if restored.is_of_another_past(state, view):
        return _reset(state, facts.StoreReset(view))
    if state.cluster is not None and view.revision < state.cluster.revision:
        return state
    if state.cluster is not None and not view.term_revision:
        # Its key cannot be read: the last known term goes on. No change of leader can be written until it is mended.
        view = view._replace(term=state.cluster.term)
    # What was sent before compared an older roster: it is void, or it is what is seen.
    is_of_another_roster = state.cluster is not None and view.roster_revision != state.cluster.roster_revision
    seen = state._replace(
        cluster=view,
        roster_sent=() if is_of_another_roster else state.roster_sent,
        is_recalled=False,
        store_error="",
        store_failed_at=_failing_since(state, view),
        absent_since=_absent(state, view),
        reset=restored.reset_after(state, view),
        unmade_since=None if view.system_identifier or view.leader else state.unmade_since or view.seen_at,
        alone_since=None,
    )
    return births.with_proof(_with_vacancy(_with_term(leases.settled(seen, view), view), view, state.cluster))


def _reset(state: State, fact: facts.StoreReset) -> State:
    """What etcd has now counts from here on, if it has lost what was known before."""
    if not restored.is_loss(state, fact.view):
        return see_cluster(state, fact.view)
    return see_cluster(restored.without_store(state, fact), fact.view)


def _absent(state: State, view: ClusterView) -> tuple[tuple[str, Instant], ...]:
    known = dict(state.absent_since)
    names = sorted(view.roster.keys() - {member.name for member in view.members})
    return tuple((name, known.get(name, view.seen_at)) for name in names)


def _failing_since(state: State, view: ClusterView) -> Instant | None:
    """A view ends a failure of the store, but not the one that let the deadline pass: that is ended by a renewal."""
    deadline = state.lease.deadline
    return state.store_failed_at if deadline is not None and view.seen_at >= deadline else None


def _with_term(state: State, view: ClusterView) -> State:
    me, lease = state.me.name, state.lease
    leads = view.leader is not None and view.leader.name == me and view.leader.lease_id == lease.lease_id
    if not leads and view.leader is None and Scene(state, view.seen_at).leads_by_peers:
        return state
    term = view.term if leads else Term(0)
    if term == lease.term:
        return state
    if term == 0:
        ended = replace(lease, term=term, peer_deadline=None)
        return state._replace(lease=ended, verified_term=Term(0), passage=None)
    passage = state.passage
    if passage is not None and passage.term == term and passage.elected_at is None:
        # The watch may tell before etcd's own answer has come, and the promotion may be over by then.
        passage = passage.marked(elected_at=view.seen_at)
    # An order to throw the data away was given to a replica. Who leads now has what others lack.
    orders = tuple(order for order in state.orders if order.kind != "reinitialize")
    return state._replace(lease=replace(lease, term=term), passage=passage, orders=orders)


def _with_vacancy(state: State, view: ClusterView, before: ClusterView | None) -> State:
    if not view.system_identifier:
        return state._replace(vacancy=None)
    offer = Scene(state, view.seen_at).offer
    is_open = view.leader is None or (offer is not None and offer.holder != state.me.name)
    if not is_open:
        return state._replace(vacancy=None)
    term = Term(view.term + 1)
    offered_in = view.request.mod_revision if offer is not None and view.request is not None else 0
    vacancy = state.vacancy
    if vacancy is not None and (vacancy.term, vacancy.offered_in) == (term, offered_in):
        return state
    former = before.leader.name if before is not None and before.leader is not None else ""
    open_after = before.revision if before is not None else 0
    # The end of an offer opens another one: in between its holder may have started again and acknowledged writes.
    # After a restore nobody knows who has most: all are heard. So are they where members' keys are gone as this one's
    # is: etcd was not to be reached, and whoever is back first would find nobody else to be compared with.
    cold = not state.server.is_replica or state.reset is not None or view.member(state.me.name) is None
    vacancy = Vacancy(term, view.seen_at, cold, open_after=open_after, offered_in=offered_in)
    return state._replace(vacancy=vacancy, passage=_passage(state, view, vacancy, former))


def _passage(state: State, view: ClusterView, vacancy: Vacancy, former: str) -> Passage:
    """The start of a record: what is known of the fault at the moment the vacancy is seen."""
    offer = view.request.offer if view.request is not None else None
    # In synchronous mode nobody is elected who lacks anything.
    is_bound = Scene(state, view.seen_at).electorate is not None
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
            former_end_is_read=offer.lsn > 0,
            former_had_another_timeline=not is_bound and _may_lack_timeline_of(state.server, view.term, offer),
            notes=offer.notes,
        )
    return Passage(
        term=vacancy.term,
        cause="leader_lost",
        former=former,
        seen_at=vacancy.since,
        fault_at=state.leader_heard_at if state.server.is_replica and state.reset is None else None,
        former_lsn=_last_told_lsn(view),
        former_end_is_read=is_bound,
        former_had_another_timeline=not is_bound and _may_lack_timeline_of(state.server, view.term, view.status),
    )


def _last_told_lsn(view: ClusterView) -> Lsn | None:
    """The position that the last leader wrote; None: it has written none, and the status is of another one."""
    is_of_last_leader = view.status.mod_revision > view.term_revision
    return (view.status.optime or None) if is_of_last_leader else None


def _may_lack_timeline_of(server: ServerView, term: Term, former: OnTimeline) -> bool:
    """What was written on the former leader's timeline may not be here, wherever the positions are: its timeline is a
    newer one, or another of that number, or may be, where only one of the two is known. `term`: of that leader.
    """
    if server.timeline != former.timeline:
        return server.timeline < former.timeline
    mine, its = server.timeline_term, former.timeline_term
    return have_forked(server, former) or (bool(mine) != bool(its) and mine != term)


def _vital_checked(state: State, fact: facts.VitalChecked) -> State:
    others = tuple(illness for illness in state.illnesses if illness.vital is not fact.vital)
    if not fact.problem:
        well = {**dict(state.vitals_at), fact.vital: fact.began_at}
        return state._replace(illnesses=others, vitals_at=tuple(well.items()))
    before = state.illness(fact.vital)
    since = before.since if before is not None else fact.began_at
    return state._replace(illnesses=(*others, Illness(fact.vital, fact.problem, since, fact.is_hung)))


def _promised(state: State, fact: facts.Promised) -> State:
    before = state.promised_until
    until = fact.until if before is None else Instant(max(before, fact.until))
    return state._replace(promised_to=fact.to, promised_until=until)


def _without_vitals_of_server(state: State) -> State:
    """Of a server that has ended nothing is known any more; its disks are checked on."""
    illnesses = tuple(illness for illness in state.illnesses if illness.vital.is_of_disk)
    vitals_at = tuple(pair for pair in state.vitals_at if pair[0].is_of_disk)
    return state._replace(illnesses=illnesses, vitals_at=vitals_at, sync=None, sentry_checked_at=None)


def _probed(state: State, server: ServerView) -> State:
    if server.probed_at < state.server.probed_at:
        return state
    before = state.server
    ended = server.phase in DOWN
    if not server.answered and server.identity == before.identity and before.in_recovery and not state.running(Promote):
        # Only a promotion ends recovery: a replica that is slow to answer is not taken for a primary.
        server = replace(server, in_recovery=True)
    if ended and before.phase is Phase.CRASHED:
        server = replace(server, phase=Phase.CRASHED, written_lsn=before.written_lsn)
    elif ended and (not state.is_busy(Lane.SERVER) or state.running(Promote)):
        # The probe may come before word of the postmaster's end does, which is then of nobody that is known any more.
        unasked = before.phase in (Phase.RUNNING, Phase.STARTING)
        led_before = before.phase is Phase.UNKNOWN and state.lease.term > 0
        if unasked or led_before:
            server = replace(server, phase=Phase.CRASHED, written_lsn=_may_have_written(state))
            state = _with_crash(state, server.probed_at)
    elif server.phase is Phase.RUNNING and not state.is_busy(Lane.SERVER):
        # It came up after its start had been given up for lost, or by another hand: no crash is left to examine.
        state = state._replace(crash=None)
    age_s = server.last_message_age_s
    if server.identity != before.identity:
        state = _without_vitals_of_server(state)
    seen = state._replace(
        server=server,
        verified_term=state.verified_term if server.is_alive else Term(0),
        leader_heard_at=state.leader_heard_at if age_s is None else after(server.probed_at, -age_s),
        not_streaming_since=_not_streaming_since(state, server),
        diverged=state.diverged and not server.streaming,
        must_clone=state.must_clone and not server.streaming,
        sync=sync_in_force(state.sync, server),
        unstreamed_since=logical.unstreamed(state.unstreamed_since, server),
    )
    return births.with_proof(seen)


def _not_streaming_since(state: State, server: ServerView) -> Instant | None:
    if not server.is_replica or server.streaming:
        return None
    return state.not_streaming_since if state.not_streaming_since is not None else server.probed_at


def _exited(state: State, fact: facts.ServerExited) -> State:
    """The end of the postmaster, by its pidfd. Asked for by us, it is a stop, else a crash."""
    if state.server.identity != fact.identity:
        return state
    asked = any(isinstance(task.action, TAKING_DOWN) for task in state.under_way)
    phase = Phase.STOPPED if asked else Phase.CRASHED
    server = replace(
        state.server,
        phase=phase,
        identity=None,
        answered=False,
        in_recovery=None,
        streaming=False,
        walsenders=(),
        written_lsn=_may_have_written(state),
        probed_at=fact.at,
    )
    state = _without_vitals_of_server(state._replace(server=server, verified_term=Term(0)))
    return state if asked else _with_crash(state, fact.at)


def _may_have_written(state: State) -> Lsn:
    """The end of what the server may have written as a primary. One that ends while it is promoted may have become one
    a moment before, and have left backends behind.
    """
    known = state.server
    return max(known.written_lsn, known.received_lsn) if state.running(Promote) else known.written_lsn


def _with_crash(state: State, at: Instant) -> State:
    return state._replace(crash=Crash(at), verified_term=Term(0))


def _routed(state: State, fact: facts.Routed) -> State:
    passage = state.passage
    if passage is None or passage.term != fact.term or passage.routed_at is not None:
        return state
    return state._replace(passage=passage.marked(routed_at=fact.at))
