"""What each action does in the miniature world, and how it ends. The executor's contract, without time or I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hamgr.core import actions, facts, peers
from hamgr.core.actions import Lane
from hamgr.core.cluster import Ballot, Request
from hamgr.core.outcomes import PeersAnswered, Promoted, WalEnd
from hamgr.core.result import Outcome, Result
from hamgr.core.server import DataDir, Phase
from hamgr.core.slotnames import slot_name
from hamgr.core.units import Instant, Lsn, Timeline

World = Any
Agent = Any
"""Duck-typed: world.py drives this module."""

DONE = Outcome(Result.DONE)
REFUSED = Outcome(Result.REFUSED, "compare", "a comparison did not hold")
NO_ETCD = Outcome(Result.FAILED, "store", "etcd does not answer")
NO_PEER = Outcome(Result.FAILED, "timeout", "the other server does not answer")
NOT_ENTITLED = Outcome(Result.REFUSED, "not_entitled", "this member does not hold the leader key")

Call = Callable[[World, Agent, Any], Outcome]


def _txn(
    world: World, agent: Agent, holds: bool, puts: dict[str, tuple[Any, int]], deletes: tuple[str, ...]
) -> Outcome:
    if holds:
        world.etcd.write(puts, deletes)
    agent.post(facts.ClusterSeen(world.etcd.view(world.now)))
    return DONE if holds else REFUSED


def _leads(world: World, agent: Agent) -> bool:
    return world.etcd.get("leader") == agent.name


def grant_lease(world: World, agent: Agent, action: actions.GrantLease) -> Outcome:
    lease_id = world.etcd.grant(action.ttl_s, world.now)
    agent.post(facts.LeaseGranted(lease_id, Instant(world.now + action.ttl_s - agent.state.policy.margin_s)))
    return DONE


def take_initialize(world: World, agent: Agent, _action: actions.TakeInitialize) -> Outcome:
    etcd, lease_id = world.etcd, agent.lease_id
    holds = "initialize" not in etcd.keys and "leader" not in etcd.keys and lease_id in etcd.leases
    puts = {"initialize": ("", lease_id), "leader": (agent.name, lease_id), "term": (etcd.get("term", 0) + 1, 0)}
    return _txn(world, agent, holds, puts, ())


def finish_initialize(world: World, agent: Agent, action: actions.FinishInitialize) -> Outcome:
    return _txn(world, agent, _leads(world, agent), {"initialize": (action.system_identifier, 0)}, ())


def take_leader(world: World, agent: Agent, action: actions.TakeLeader) -> Outcome:
    etcd, lease_id = world.etcd, agent.lease_id
    holder = action.from_holder
    holds = (
        lease_id in etcd.leases
        and etcd.mod("leader") == (holder.mod_revision if holder else 0)
        and etcd.get("term") == action.term - 1
        and etcd.mod("failover") == action.request_revision
        and etcd.mod("config") == action.config_revision
        and action.roster_revision in (None, etcd.mod("roster"))
        and all(etcd.mod(f"ballots/{name}") == revision for name, revision in action.ballots)
    )
    puts = {"leader": (agent.name, lease_id), "term": (action.term, 0)}
    return _txn(world, agent, holds, puts, ("ballots/", "failover"))


def reattach_leader(world: World, agent: Agent, action: actions.ReattachLeader) -> Outcome:
    holds = _leads(world, agent) and world.etcd.mod("leader") == action.old.mod_revision
    return _txn(world, agent, holds, {"leader": (agent.name, agent.lease_id)}, ())


def release_leader(world: World, agent: Agent, action: actions.ReleaseLeader) -> Outcome:
    is_held = world.etcd.mod("leader") == action.leader_revision
    holds = _leads(world, agent) and world.etcd.get("term") == action.term and is_held
    parting = Request(leader=agent.name, offer=action.parting)
    puts = {"released": (action.term, 0)} | ({"failover": (parting, 0)} if action.parting else {})
    outcome = _txn(world, agent, holds, puts, ("leader",))
    return outcome if _leads(world, agent) else DONE


def put_offer(world: World, agent: Agent, action: actions.PutOffer) -> Outcome:
    is_held = world.etcd.mod("leader") == action.leader_revision
    holds = _leads(world, agent) and is_held and world.etcd.mod("failover") == action.request_revision
    request = Request(leader=agent.name, candidate=action.successor, offer=action.offer)
    return _txn(world, agent, holds, {"failover": (request, 0)}, ())


def withdraw_offer(world: World, agent: Agent, action: actions.WithdrawOffer) -> Outcome:
    holds = _leads(world, agent) and world.etcd.mod("failover") == action.request_revision
    return _txn(world, agent, holds, {}, ("failover",))


def clear_request(world: World, agent: Agent, action: actions.ClearRequest) -> Outcome:
    holds = world.etcd.mod("failover") == action.request_revision
    if holds:
        world.refusals.append(action.refusal)
    return _txn(world, agent, holds, {}, ("failover",))


def cast_ballot(world: World, agent: Agent, action: actions.CastBallot) -> Outcome:
    if agent.lease_id not in world.etcd.leases:
        return NO_ETCD
    server = agent.server
    priority = agent.state.me.tags.failover_priority
    ballot = Ballot(agent.name, action.term, Timeline(server.timeline), Lsn(server.lsn), priority)
    world.etcd.write({f"ballots/{agent.name}": (ballot, agent.lease_id)})
    return Outcome(Result.DONE, value=replace(ballot, mod_revision=world.etcd.revision))


def put_member(world: World, agent: Agent, action: actions.PutMember) -> Outcome:
    if agent.lease_id not in world.etcd.leases:
        return NO_ETCD
    world.etcd.write({f"members/{agent.name}": (action.member, agent.lease_id)})
    return DONE


def put_status(world: World, agent: Agent, action: actions.PutStatus) -> Outcome:
    return _txn(world, agent, _leads(world, agent), {"status": (action.status, 0)}, ())


def put_record(world: World, _agent: Agent, action: actions.PutRecord) -> Outcome:
    world.records[action.record.term] = action.record
    return DONE


def put_history(world: World, agent: Agent, action: actions.PutHistory) -> Outcome:
    holds = _leads(world, agent) and world.etcd.mod("history") == action.expected_revision
    return _txn(world, agent, holds, {"history": (action.lines, 0)}, ())


def put_roster(world: World, agent: Agent, action: actions.PutRoster) -> Outcome:
    holds = _leads(world, agent) and world.etcd.mod("roster") == action.expected_revision
    return _txn(world, agent, holds, {"roster": (dict(action.roster), 0)}, ())


# -- the local server ------------------------------------------------------------------------------------------


def initdb(world: World, agent: Agent, _action: actions.InitDb) -> Outcome:
    world.systems += 1
    agent.server.initialise(f"system-{world.systems}")
    return DONE


def start_primary(world: World, agent: Agent, action: actions.StartPrimary) -> Outcome:
    if not world.is_entitled(agent, action.term):
        return NOT_ENTITLED
    world.arm(agent)
    agent.server.start(as_standby=False)
    return DONE


def start_standby(world: World, agent: Agent, action: actions.StartStandby) -> Outcome:
    if action.check_history:
        outcome = check_history(world, agent, action)
        if outcome is not DONE:
            return outcome
    world.disarm(agent)
    upstream = agent.server.upstream if action.upstream is None else world.address(action.upstream.name)
    agent.server.start(as_standby=True, upstream=upstream)
    return DONE


def check_history(world: World, agent: Agent, action: Any) -> Outcome:
    other = world.reachable_server(action.upstream.name, agent.name)
    if other is None:
        return NO_PEER
    is_ancestor = agent.server.is_ancestor_of(other)
    return DONE if is_ancestor else Outcome(Result.REFUSED, "diverged", "the histories differ")


def stop(world: World, agent: Agent, action: Any) -> Outcome:
    began_at = Instant(world.now)
    world.stop_server(agent)
    world.disarm(agent)
    server = agent.server
    value = WalEnd(Timeline(server.timeline), Lsn(server.lsn), server.was_clean, began_at)
    return Outcome(Result.DONE, value=value)


def fence(world: World, agent: Agent, _action: actions.Fence) -> Outcome:
    if agent.server.is_alive:
        agent.server.stop(clean=False)
    world.disarm(agent)
    return DONE


def examine_crash(world: World, agent: Agent, _action: actions.ExamineCrash) -> Outcome:
    world.disarm(agent)
    server = agent.server
    return Outcome(Result.DONE, value=WalEnd(Timeline(server.timeline), Lsn(server.lsn), was_clean=False))


def put_down(world: World, agent: Agent, action: actions.PutDown) -> Outcome:
    if agent.server.is_alive:
        agent.server.stop(clean=False)
    return examine_crash(world, agent, actions.ExamineCrash(action.from_lsn))


def ask_peers(world: World, agent: Agent, action: actions.AskPeers) -> Outcome:
    """Each peer whose agent lives and can be reached answers by the real rule, and keeps its word."""
    refused: dict[str, str] = {}
    for ttl_s in (0.0, world.policy.ttl_s):
        claim = peers.Claim(agent.name, action.term, ttl_s)
        for name, _ in action.peers:
            peer = world.agents.get(name)
            if peer is None or not peer.is_alive or {name, agent.name} & world.isolated:
                refused[name] = "no answer"
                continue
            promise = peers.answer(peer.state, Instant(world.now), claim)
            if promise.until is None:
                refused[name] = promise.why
            elif promise.until > world.now:
                peer.post(facts.Promised(agent.name, promise.until))
        if refused:
            value = PeersAnswered(Instant(world.now), refused)
            return Outcome(Result.FAILED, "peers", str(refused), value)
    if agent.guard_deadline is not None:
        agent.guard_deadline = world.now + world.policy.ttl_s - world.policy.margin_s
    return Outcome(Result.DONE, value=PeersAnswered(Instant(world.now)))


def retake_leader(world: World, agent: Agent, action: actions.RetakeLeader) -> Outcome:
    etcd = world.etcd
    holds = (
        "leader" not in etcd.keys
        and etcd.mod("term") == action.term_revision
        and etcd.mod("roster") == action.roster_revision
        and agent.lease_id in etcd.leases
    )
    return _txn(world, agent, holds, {"leader": (agent.name, agent.lease_id)}, ("ballots/",))


def promote(world: World, agent: Agent, action: actions.Promote) -> Outcome:
    server = agent.server
    if not world.is_entitled(agent, action.term):
        return NOT_ENTITLED
    if server.is_hung or server.phase is not Phase.RUNNING:
        return Outcome(Result.FAILED, "timeout", "the server does not answer")
    world.arm(agent)
    if server.in_recovery:
        server.promote()
    now = Instant(world.now)
    return Outcome(Result.DONE, value=Promoted(Timeline(server.timeline), Lsn(server.lsn), now, now))


def follow(world: World, agent: Agent, action: actions.Follow) -> Outcome:
    agent.server.upstream = world.address(action.upstream.name)
    return DONE


def rewind(world: World, agent: Agent, action: actions.Rewind) -> Outcome:
    source = world.reachable_server(action.source.name, agent.name)
    if source is None or source.in_recovery:
        return NO_PEER
    agent.server.copy_from(source)
    return DONE


def clone(world: World, agent: Agent, action: actions.Clone) -> Outcome:
    source = world.reachable_server(action.source.name, agent.name)
    if source is None:
        return NO_PEER
    if action.keep_aside:
        world.kept_aside.append(agent.name)
    agent.server.copy_from(source)
    return DONE


def restart(world: World, agent: Agent, action: actions.RestartServer) -> Outcome:
    world.stop_server(agent)
    if action.as_primary_in is not None:
        return start_primary(world, agent, actions.StartPrimary(action.as_primary_in))
    return start_standby(world, agent, actions.StartStandby(action.upstream))


def reinitialize(world: World, agent: Agent, action: actions.Reinitialize) -> Outcome:
    world.stop_server(agent)
    agent.server.data_dir = DataDir.EMPTY
    outcome = clone(world, agent, actions.Clone(action.source))
    return outcome if outcome is not DONE else start_standby(world, agent, actions.StartStandby(action.source))


def ensure_slots(_world: World, agent: Agent, action: actions.EnsureSlots) -> Outcome:
    agent.server.slots = {slot_name(name): agent.server.slots.get(slot_name(name), Lsn(0)) for name in action.members}
    return DONE


def nothing(_world: World, _agent: Agent, _action: Any) -> Outcome:
    return DONE


CALLS: dict[type, Call] = {
    actions.GrantLease: grant_lease,
    actions.TakeInitialize: take_initialize,
    actions.FinishInitialize: finish_initialize,
    actions.TakeLeader: take_leader,
    actions.ReattachLeader: reattach_leader,
    actions.ReleaseLeader: release_leader,
    actions.PutOffer: put_offer,
    actions.WithdrawOffer: withdraw_offer,
    actions.ClearRequest: clear_request,
    actions.CastBallot: cast_ballot,
    actions.PutMember: put_member,
    actions.PutStatus: put_status,
    actions.PutRecord: put_record,
    actions.PutHistory: put_history,
    actions.PutRoster: put_roster,
    actions.InitDb: initdb,
    actions.StartPrimary: start_primary,
    actions.StartStandby: start_standby,
    actions.CheckHistory: check_history,
    actions.StopServer: stop,
    actions.HandOverStop: stop,
    actions.Fence: fence,
    actions.ExamineCrash: examine_crash,
    actions.PutDown: put_down,
    actions.AskPeers: ask_peers,
    actions.RetakeLeader: retake_leader,
    actions.Promote: promote,
    actions.EnsureSentry: nothing,
    actions.SetSync: nothing,
    actions.PutSync: nothing,
    actions.Follow: follow,
    actions.Rewind: rewind,
    actions.Clone: clone,
    actions.RestartServer: restart,
    actions.Reinitialize: reinitialize,
    actions.EnsureSlots: ensure_slots,
    actions.Checkpoint: nothing,
    actions.ApplyConfig: nothing,
}

STORE_LANES = frozenset(
    {
        Lane.LEASE,
        Lane.LEADERSHIP,
        Lane.BALLOT,
        Lane.REQUEST,
        Lane.MEMBER,
        Lane.STATUS,
        Lane.RECORD,
        Lane.HISTORY,
        Lane.ROSTER,
    }
)
