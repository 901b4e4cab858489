"""What facts about leases leave in the state: which one this member has, until when, and where the leader key is."""

from __future__ import annotations

from dataclasses import replace

from hamgr.core.actions import CastBallot, Lane, PutMember, PutOffer, PutSync
from hamgr.core.cluster import ClusterView
from hamgr.core.facts import LeaseAdopted, LeaseGone, LeaseGranted, LeaseTried, Renewed
from hamgr.core.policy import counted_from
from hamgr.core.state import Failure, Lease, State
from hamgr.core.units import Instant


def granted(state: State, fact: LeaseGranted) -> State:
    """The new lease takes the place of the one before, if there is one.

    Not of one on which the leader key hangs, or may come to hang: then the new one came too late, and is left to run
    out.
    """
    lease = state.lease
    answered = state._replace(store_error="", store_failed_at=None)
    if lease.lease_id and (lease.term or state.is_busy(Lane.LEADERSHIP)):
        return answered
    # What failed with the lease before is tried at once: until then nobody sees this member.
    return answered.forgiven(CastBallot, PutMember)._replace(lease=_on(lease, fact))


def _on(lease: Lease, new: LeaseGranted | LeaseTried) -> Lease:
    return replace(
        lease,
        lease_id=new.lease_id,
        deadline=new.deadline,
        ttl_s=new.ttl_s,
        asked_ttl_s=new.asked_ttl_s,
        confirmed_at=counted_from(new.deadline, new.ttl_s) if new.ttl_s else None,
        tried=None,
    )


def tried(state: State, fact: LeaseTried) -> State:
    """From here on the leader key may be on either lease: the earlier deadline counts. So for that by the peers, which
    may be one that was adopted, and the old lease's.
    """
    lease = state.lease
    deadline, peer_deadline = _not_after(fact.deadline, lease.deadline), lease.peer_deadline
    if peer_deadline is not None:
        peer_deadline = _not_after(fact.deadline, peer_deadline)
    return state._replace(lease=replace(lease, deadline=deadline, peer_deadline=peer_deadline, tried=fact))


def _not_after(limit: Instant, deadline: Instant | None) -> Instant:
    return limit if deadline is None else Instant(min(limit, deadline))


def settled(state: State, view: ClusterView) -> State:
    """Where the leader key is found on the lease that was tried, this member leads by that one. Where the key was
    written by somebody since, the move of it is void.
    """
    lease, leader = state.lease, view.leader
    if lease.tried is None:
        return state
    if leader is not None and (leader.name, leader.lease_id) == (state.me.name, lease.tried.lease_id):
        return state._replace(lease=_on(lease, lease.tried))
    is_void = leader is None or leader.name != state.me.name
    if leader is not None and lease.tried.leader_revision:
        is_void = leader.mod_revision != lease.tried.leader_revision
    return state._replace(lease=replace(lease, tried=None)) if is_void else state


def adopted(state: State, fact: LeaseAdopted) -> State:
    """The predecessor's lease is this agent's. Whether etcd or the peers vouched for that deadline, it stands: where
    that one was moving the key, both leases bound it already, and only the peers have moved it on since.

    A predecessor that did not lead any more may have sent an offer before it ended: that is counted on, and the key
    written afresh before a server starts. One that led may have sent an electorate: the one that is read is written
    afresh before the rule moves.
    """
    if (
        not fact.term
        and fact.tried is None
        and state.promised_until is not None
        and state.promised_until > fact.deadline
    ):
        # It did not lead, and promised that to another: if etcd says of this lease that it does, that is of a backup.
        return state
    peer_deadline = fact.deadline if fact.term else None
    deadline = fact.deadline if fact.tried is None else _not_after(fact.tried.deadline, fact.deadline)
    state = state._replace(lease=Lease(fact.lease_id, deadline, fact.term, peer_deadline, tried=fact.tried))
    kind = PutSync if fact.term else PutOffer
    sent = Failure(kind.__name__, "unknown", "perhaps sent by the agent before this one", 0, Instant(0.0))
    return state._replace(failures=(*state.failures, sent))


def renewed(state: State, fact: Renewed) -> State:
    """The deadline is that of the renewal, never earlier than it was, nor later than that of a lease that is tried."""
    lease = state.lease
    if fact.lease_id != lease.lease_id:
        return state
    deadline = fact.deadline if lease.deadline is None else Instant(max(lease.deadline, fact.deadline))
    if lease.tried is not None:
        deadline = _not_after(lease.tried.deadline, deadline)
    confirmed_at = counted_from(fact.deadline, fact.ttl_s)
    return state._replace(lease=replace(lease, deadline=deadline, ttl_s=fact.ttl_s, confirmed_at=confirmed_at))


def gone(state: State, fact: LeaseGone) -> State:
    """The lease is gone from etcd. Whoever leads by its peers leads on; the key is taken again on another lease."""
    lease = state.lease
    if fact.lease_id != lease.lease_id:
        return state
    if lease.peer_deadline is None or fact.at >= lease.peer_deadline:
        return state._replace(lease=Lease())
    by_peers = Lease(term=lease.term, peer_deadline=lease.peer_deadline, promised_at=lease.promised_at)
    return state._replace(lease=by_peers)
