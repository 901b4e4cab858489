"""Actions on the store, as hamgr/agent/store_calls.py carries them out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from hamgr.core import actions
from hamgr.core.cluster import Ballot
from hamgr.core.facts import ClusterSeen, LeaseGranted, LeaseTried, StoreFailed
from hamgr.core.policy import deadline_of
from hamgr.core.result import NOT_SENT, Outcome, Result
from hamgr.core.units import Lsn, Timeline
from hamgr.sim import transactions
from hamgr.sim.agent import Agent
from hamgr.sim.asking import NoAnswer, settle
from hamgr.sim.etcd import Etcd
from hamgr.sim.mutants import Mutant
from hamgr.sim.steps import Steps, Wait
from hamgr.sim.transactions import Claimant

DONE = Outcome(Result.DONE)
COMPARE = Outcome(Result.REFUSED, "compare", "a comparison did not hold")
LEASE_GONE = Outcome(Result.FAILED, "store", "the lease is gone")
RECEIVE_PATIENCE_S = 0.2
RECEIVE_POLL_S = 0.01
RECEIVER_STOPS_S = 0.005
LATE_S = (0.5, 3.0)

Do = Callable[[Etcd, Claimant], Any]


def _claimant(agent: Agent) -> Claimant:
    view = agent.state.cluster
    return Claimant(agent.name, agent.lease_id, view.term_revision if view is not None else 0)


def _settle(agent: Agent, do: Callable[[], Any]) -> Generator[Wait, Any, Any]:
    answer = yield from settle(agent.ground, agent, agent.name, do, agent.state.policy.retry_timeout_s)
    if isinstance(answer, NoAnswer):
        agent.post(StoreFailed(agent.clock_now(), "etcd does not answer"))
    return answer


def _no_answer(answer: NoAnswer) -> Outcome:
    if answer is NoAnswer.REFUSED:
        return Outcome(Result.FAILED, NOT_SENT, "etcd does not answer")
    return Outcome(Result.UNKNOWN, "unknown", "no answer in time")


def _then_read(agent: Agent, do: Do) -> Steps:
    """A transaction on the leadership, and the view that it left, folded in before its end is known."""
    etcd, me, sent_at = agent.ground.etcd, _claimant(agent), agent.clock_now()
    answer = yield from _settle(agent, lambda: (do(etcd, me), etcd.view(sent_at)))
    if isinstance(answer, NoAnswer):
        return _no_answer(answer)
    holds, view = answer
    agent.post(ClusterSeen(view))
    return DONE if holds else COMPARE


def _plain(agent: Agent, do: Do) -> Steps:
    """A transaction whose effect the watch will tell."""
    etcd, me = agent.ground.etcd, _claimant(agent)
    answer = yield from _settle(agent, lambda: do(etcd, me))
    if isinstance(answer, NoAnswer):
        return _no_answer(answer)
    return DONE if answer else COMPARE


def grant_lease(agent: Agent, action: actions.GrantLease) -> Steps:
    ground, sent_at = agent.ground, agent.clock_now()
    answer = yield from _settle(agent, lambda: ground.etcd.grant(action.ttl_s, ground.now, agent.name))
    if isinstance(answer, NoAnswer):
        return _no_answer(answer)
    ttl_s = action.ttl_s
    agent.post(LeaseGranted(answer, deadline_of(sent_at, ttl_s), ttl_s, ttl_s))
    return DONE


def move_leader(agent: Agent, action: actions.MoveLeader) -> Steps:
    """The page is bound by the new lease, and the loop knows of it, before anything can take effect."""
    ground, sent_at, lease_id, ttl_s = agent.ground, agent.clock_now(), action.lease_id, action.ttl_s
    if not lease_id:
        answer = yield from _settle(agent, lambda: ground.etcd.grant(ttl_s, ground.now, agent.name))
        if isinstance(answer, NoAnswer):
            return _no_answer(answer)
        lease_id, deadline = answer, deadline_of(sent_at, ttl_s)
        if ground.mutant is not Mutant.MOVE_NOT_LIMITED:
            agent.page.limit(deadline, lease_id)
        agent.post(LeaseTried(lease_id, deadline, ttl_s, ttl_s, action.old.mod_revision))
    me = replace(_claimant(agent), lease_id=lease_id)
    return (yield from _then_read(agent, lambda etcd, _me: transactions.reattach_leader(etcd, me, action)))


def take_initialize(agent: Agent, _action: actions.TakeInitialize) -> Steps:
    return _then_read(agent, transactions.take_initialize)


def finish_initialize(agent: Agent, action: actions.FinishInitialize) -> Steps:
    return _then_read(agent, lambda etcd, me: transactions.finish_initialize(etcd, me, action.system_identifier))


def take_leader(agent: Agent, action: actions.TakeLeader) -> Steps:
    compares = agent.ground.mutant is not Mutant.BALLOTS_NOT_COMPARED
    return _then_read(agent, lambda etcd, me: transactions.take_leader(etcd, me, action, compares_ballots=compares))


def retake_leader(agent: Agent, action: actions.RetakeLeader) -> Steps:
    return _then_read(agent, lambda etcd, me: transactions.retake_leader(etcd, me, action))


def reattach_leader(agent: Agent, action: actions.ReattachLeader) -> Steps:
    return _then_read(agent, lambda etcd, me: transactions.reattach_leader(etcd, me, action))


def release_leader(agent: Agent, action: actions.ReleaseLeader) -> Steps:
    return _then_read(agent, lambda etcd, me: transactions.release_leader(etcd, me, action))


def put_offer(agent: Agent, action: actions.PutOffer) -> Steps:
    return _then_read(agent, lambda etcd, me: transactions.put_offer(etcd, me, action))


def withdraw_offer(agent: Agent, action: actions.WithdrawOffer) -> Steps:
    return _then_read(agent, lambda etcd, me: transactions.withdraw_offer(etcd, me, action))


def clear_request(agent: Agent, action: actions.ClearRequest) -> Steps:
    agent.shared.refusals.append(action.refusal)
    return _plain(agent, lambda etcd, me: transactions.clear_request(etcd, me, action))


def cast_ballot(agent: Agent, action: actions.CastBallot) -> Steps:
    """Vote with a fresh measurement; with an offer, wait a moment for the WAL that is still on its way."""
    ground, server = agent.ground, agent.server
    give_up_at = ground.now + RECEIVE_PATIENCE_S
    while server.lsn < action.at_least and ground.now < give_up_at:
        yield RECEIVE_POLL_S
    if action.stops_receiver and ground.mutant is not Mutant.RECEIVER_NOT_STOPPED:
        yield RECEIVER_STOPS_S
        if server.is_frozen or not server.is_alive:
            return Outcome(Result.FAILED, "timeout", "the WAL receiver does not stop")
        agent.shared.replication.stop_receiver(server)
    if not server.is_alive or server.is_frozen:
        return Outcome(Result.FAILED, "timeout", "the server does not answer")
    priority = agent.state.me.tags.failover_priority
    timeline = Timeline(server.timeline)
    timeline_term = server.birth.term_of(timeline) or action.offered.term_of(timeline)
    ballot = Ballot(agent.name, action.term, timeline, Lsn(server.lsn), priority, timeline_term)
    etcd, me = ground.etcd, _claimant(agent)
    answer = yield from _settle(agent, lambda: transactions.put_ballot(etcd, me, ballot, action.leader_revision))
    if isinstance(answer, NoAnswer):
        return _no_answer(answer)
    if answer is None:
        return COMPARE
    return Outcome(Result.DONE, value=replace(ballot, mod_revision=answer)) if answer else LEASE_GONE


def put_member(agent: Agent, action: actions.PutMember) -> Steps:
    etcd, me = agent.ground.etcd, _claimant(agent)
    answer = yield from _settle(agent, lambda: transactions.put_member(etcd, me, action))
    if isinstance(answer, NoAnswer):
        return _no_answer(answer)
    return DONE if answer else LEASE_GONE


def put_record(agent: Agent, action: actions.PutRecord) -> Steps:
    agent.shared.records.setdefault(action.record.term, action.record)
    agent.shared.on_record(action.record)
    return _plain(agent, lambda _etcd, _me: True)


def _as_leader(agent: Agent, key: str, value: object, expected_revision: int | None) -> Steps:
    return _plain(agent, lambda etcd, me: transactions.put_as_leader(etcd, me, key, value, expected_revision))


def put_status(agent: Agent, action: actions.PutStatus) -> Steps:
    return _as_leader(agent, "status", action.status, None)


def put_history(agent: Agent, action: actions.PutHistory) -> Steps:
    return _as_leader(agent, "history", action.lines, action.expected_revision)


def put_roster(agent: Agent, action: actions.PutRoster) -> Steps:
    return _as_leader(agent, "failsafe", dict(action.roster), action.expected_revision)


def put_sync(agent: Agent, action: actions.PutSync) -> Steps:
    if agent.ground.mutant is Mutant.SYNC_ORDER_REVERSED:
        return _put_sync_late(agent, action)
    return _then_read(
        agent,
        lambda etcd, me: transactions.put_as_leader(etcd, me, "sync", action.electorate, action.expected_revision),
    )


def _put_sync_late(agent: Agent, action: actions.PutSync) -> Steps:
    """The caller sees it written; etcd has it only later."""
    ground, me = agent.ground, _claimant(agent)
    etcd, written = ground.etcd, replace(action.electorate, mod_revision=action.expected_revision)
    moment = ground.later(LATE_S)

    def write() -> None:
        transactions.put_as_leader(etcd, me, "sync", action.electorate, None)

    ground.at(moment, write)
    yield 0.001
    view = etcd.view(agent.clock_now())
    agent.post(ClusterSeen(view._replace(sync=written)))
    return DONE


STORE_CALLS: dict[type, Callable[[Agent, Any], Steps]] = {
    actions.GrantLease: grant_lease,
    actions.TakeInitialize: take_initialize,
    actions.FinishInitialize: finish_initialize,
    actions.TakeLeader: take_leader,
    actions.RetakeLeader: retake_leader,
    actions.MoveLeader: move_leader,
    actions.ReattachLeader: reattach_leader,
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
