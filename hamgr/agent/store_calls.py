"""Actions on the store: each a short coroutine over the Store interface. None decides anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hamgr.agent.clock import now, wall
from hamgr.agent.world import World
from hamgr.core import actions
from hamgr.core.cluster import Ballot, Request
from hamgr.core.facts import ClusterSeen, LeaseGranted, LeaseTried
from hamgr.core.pipeline import record_as_json
from hamgr.core.policy import deadline_of
from hamgr.core.result import Outcome, Result
from hamgr.core.units import after
from hamgr.dcs.errors import StoreError
from hamgr.dcs.store import TxnOutcome
from hamgr.dcs.transactions import LeaderClaim

DONE = Outcome(Result.DONE)
RECEIVE_POLL_S = 0.002
RECEIVE_PATIENCE_S = 0.2
RECORDS_KEPT = 50


CODES = {Result.DONE: "", Result.UNKNOWN: "unknown"}
"""What is refused failed a comparison."""


def outcome_of(result: TxnOutcome) -> Outcome:
    """The executor's words for a transaction's end."""
    return Outcome(Result(result.result.value), CODES.get(result.result, "compare"), result.text)


async def _then_read(world: World, txn: Awaitable[TxnOutcome]) -> Outcome:
    """A transaction on the leadership, and the view that it left, folded in before its end is known.

    Without that, a decision taken at once after it would still be made on the view before.
    """
    outcome = outcome_of(await txn)
    try:
        world.post(ClusterSeen(await world.store.read()))
    except StoreError as error:
        return Outcome(Result.UNKNOWN, "unknown", f"{outcome.result.value}, and then: {error}")
    return outcome


async def grant_lease(world: World, action: actions.GrantLease) -> Outcome:
    grant = await world.store.grant_lease(action.ttl_s)
    deadline = deadline_of(grant.sent_at, grant.ttl_s)
    world.post(LeaseGranted(grant.lease_id, deadline, grant.ttl_s, action.ttl_s))
    return DONE


async def move_leader(world: World, action: actions.MoveLeader) -> Outcome:
    """The page is bound by the new lease, and the loop knows of it, before anything can take effect."""
    lease_id = action.lease_id
    if not lease_id:
        grant = await world.store.grant_lease(action.ttl_s)
        lease_id, deadline = grant.lease_id, deadline_of(grant.sent_at, grant.ttl_s)
        world.link.limit(deadline, lease_id)
        world.post(LeaseTried(lease_id, deadline, grant.ttl_s, action.ttl_s, action.old.mod_revision))
    return await _then_read(world, world.store.reattach_leader(world.me, action.old, lease_id))


async def take_initialize(world: World, _action: actions.TakeInitialize) -> Outcome:
    return await _then_read(world, world.store.take_initialize(world.me, world.lease_id))


async def finish_initialize(world: World, action: actions.FinishInitialize) -> Outcome:
    seed = world.seed_config()
    return await _then_read(world, world.store.finish_initialize(world.me, action.system_identifier, seed))


async def take_leader(world: World, action: actions.TakeLeader) -> Outcome:
    state = world.state()
    view = state.cluster
    if view is None:
        return Outcome(Result.REFUSED, "no_view", "etcd has not been read")
    claim = LeaderClaim(
        me=world.me,
        lease_id=world.lease_id,
        term=action.term,
        term_revision=view.term_revision,
        from_holder=action.from_holder,
        request_revision=action.request_revision,
        config_revision=action.config_revision,
        ballots=dict(action.ballots),
        delete_request=action.request_revision != 0,
        roster_revision=action.roster_revision,
        sync_revision=action.sync_revision,
    )
    return await _then_read(world, world.store.take_leader(claim))


async def reattach_leader(world: World, action: actions.ReattachLeader) -> Outcome:
    return await _then_read(world, world.store.reattach_leader(world.me, action.old, world.lease_id))


async def retake_leader(world: World, action: actions.RetakeLeader) -> Outcome:
    txn = world.store.retake_leader(world.me, world.lease_id, action.term_revision, action.roster_revision)
    outcome = await _then_read(world, txn)
    if outcome.result is Result.DONE:
        # At once, and not with the next renewal: an agent that follows this one adopts the lease by it.
        world.link.name_lease(world.lease_id)
    return outcome


async def release_leader(world: World, action: actions.ReleaseLeader) -> Outcome:
    world.link.forget_term()
    parting = None if action.parting is None else Request(leader=world.me, offer=action.parting)
    return await _then_read(world, world.store.release_leader(world.me, action.term, action.leader_revision, parting))


async def put_offer(world: World, action: actions.PutOffer) -> Outcome:
    # Whatever becomes of it, an agent that follows this one does not lead on by what the page says.
    world.link.forget_term()
    request = Request(
        leader=world.me, candidate=action.successor, offer=action.offer, mod_revision=action.request_revision
    )
    return await _then_read(world, world.store.put_offer(world.me, request, action.leader_revision))


async def withdraw_offer(world: World, action: actions.WithdrawOffer) -> Outcome:
    return await _then_read(world, world.store.withdraw_offer(world.me, world.lease_id, action.request_revision))


async def cast_ballot(world: World, action: actions.CastBallot) -> Outcome:
    """Vote with a fresh measurement; with an offer, wait a moment for the WAL that is still on its way.

    Where the receiver is to be stopped it is stopped before that, and there is no vote if it does not end. Without an
    offer the server is looked at first: whether the old primary still streams to it decides about the lead.
    """
    if not action.at_least:
        await world.probe()
    if action.stops_receiver:
        await world.server.stop_receiver()
    give_up_at = after(now(), RECEIVE_PATIENCE_S)
    received = await world.server.received()
    while received.streaming and received.lsn < action.at_least and now() < give_up_at:
        await asyncio.sleep(RECEIVE_POLL_S)
        received = await world.server.received()
    priority = world.state().me.tags.failover_priority
    noted = world.state().server.birth.term_of(received.timeline)
    timeline_term = noted or action.offered.term_of(received.timeline)
    ballot = Ballot(world.me, action.term, received.timeline, received.lsn, priority, timeline_term)
    cast = await world.store.put_ballot(ballot, world.lease_id, action.leader_revision)
    if cast is None:
        return Outcome(Result.REFUSED, "compare", "the election that it was for is over")
    return Outcome(Result.DONE, value=cast)


async def clear_request(world: World, action: actions.ClearRequest) -> Outcome:
    world.refused[action.request_revision] = action.refusal
    return outcome_of(await world.store.clear_request(action.request_revision))


async def put_member(world: World, action: actions.PutMember) -> Outcome:
    await world.store.put_member(action.member, world.lease_id)
    return DONE


async def put_status(world: World, action: actions.PutStatus) -> Outcome:
    return outcome_of(await world.store.put_status(action.status, world.me))


async def put_record(world: World, action: actions.PutRecord) -> Outcome:
    record = action.record if action.record.at else replace(action.record, at=wall())
    await world.store.put_record(record.term, record_as_json(record), keep=RECORDS_KEPT)
    world.recorded(record)
    return DONE


async def put_history(world: World, action: actions.PutHistory) -> Outcome:
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    *before, last = action.lines
    lines = (*before, replace(last, timestamp=last.timestamp or stamp))
    return outcome_of(await world.store.put_history(world.me, lines, action.expected_revision))


async def put_roster(world: World, action: actions.PutRoster) -> Outcome:
    # A member that may campaign and is not known here would not be asked for its promise after a restart.
    await world.memory.widen(action.roster)
    return outcome_of(await world.store.put_roster(world.me, action.roster, action.expected_revision))


async def put_sync(world: World, action: actions.PutSync) -> Outcome:
    return await _then_read(world, world.store.put_sync(world.me, action.electorate, action.expected_revision))


STORE_CALLS: dict[type, Callable[[World, Any], Awaitable[Outcome]]] = {
    actions.GrantLease: grant_lease,
    actions.TakeInitialize: take_initialize,
    actions.FinishInitialize: finish_initialize,
    actions.TakeLeader: take_leader,
    actions.ReattachLeader: reattach_leader,
    actions.RetakeLeader: retake_leader,
    actions.MoveLeader: move_leader,
    actions.ReleaseLeader: release_leader,
    actions.PutOffer: put_offer,
    actions.WithdrawOffer: withdraw_offer,
    actions.CastBallot: cast_ballot,
    actions.ClearRequest: clear_request,
    actions.PutMember: put_member,
    actions.PutStatus: put_status,
    actions.PutRecord: put_record,
    actions.PutHistory: put_history,
    actions.PutRoster: put_roster,
    actions.PutSync: put_sync,
}
