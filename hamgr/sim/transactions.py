"""The transactions of hamgr.dcs on the store in memory: what each compares, and what it writes.

Each returns whether its comparisons held. Sent again after a lost reply, it knows whether it has been done already.
"""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core import actions
from hamgr.core.cluster import Ballot, Request, SyncState
from hamgr.core.units import Term
from hamgr.sim.etcd import Etcd


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who sends it, by which lease; `term_revision` as it knew it."""

    name: str
    lease_id: int
    term_revision: int = 0


def leads(etcd: Etcd, me: Claimant) -> bool:
    return bool(etcd.get("leader") == me.name)


def take_initialize(etcd: Etcd, me: Claimant) -> bool:
    if _leads_by(etcd, me):
        return True
    if "initialize" in etcd.keys or "leader" in etcd.keys or me.lease_id not in etcd.leases:
        return False
    term = etcd.get("term", 0) + 1
    etcd.write({"initialize": ("", me.lease_id), "leader": (me.name, me.lease_id), "term": (term, 0)})
    return True


def finish_initialize(etcd: Etcd, me: Claimant, system_identifier: str) -> bool:
    if not leads(etcd, me):
        return False
    etcd.write({"initialize": (system_identifier, 0)})
    return True


def take_leader(etcd: Etcd, me: Claimant, action: actions.TakeLeader, *, compares_ballots: bool) -> bool:
    """The lead becomes mine if nothing has changed that the decision rests on."""
    if _leads_by(etcd, me) and etcd.get("term") == action.term:
        return True
    holder = action.from_holder
    holds = (
        me.lease_id in etcd.leases
        and etcd.mod("leader") == (holder.mod_revision if holder else 0)
        and etcd.mod("term") == me.term_revision
        and etcd.mod("failover") == action.request_revision
        and etcd.mod("config") == action.config_revision
        and action.roster_revision == etcd.mod("failsafe")
        and action.sync_revision in (None, etcd.mod("sync"))
        and (not compares_ballots or all(etcd.mod(f"ballots/{name}") == seen for name, seen in action.ballots))
    )
    if not holds:
        return False
    puts: dict[str, tuple[object, int]] = {"leader": (me.name, me.lease_id), "term": (action.term, 0)}
    if action.sync_revision is not None:
        puts["sync"] = (SyncState(leader=me.name), 0)
    etcd.write(puts, ("ballots/", "failover"))
    return True


def retake_leader(etcd: Etcd, me: Claimant, action: actions.RetakeLeader) -> bool:
    """The lead is mine again in the same term. Ballots go: who cast them may have acknowledged more since."""
    if _leads_by(etcd, me):
        return True
    holds = (
        me.lease_id in etcd.leases
        and "leader" not in etcd.keys
        and etcd.mod("term") == action.term_revision
        and etcd.mod("failsafe") == action.roster_revision
    )
    if holds:
        etcd.write({"leader": (me.name, me.lease_id)}, ("ballots/",))
    return holds


def reattach_leader(etcd: Etcd, me: Claimant, action: actions.ReattachLeader | actions.MoveLeader) -> bool:
    if _leads_by(etcd, me) and etcd.mod("leader") != action.old.mod_revision:
        return True
    holds = leads(etcd, me) and etcd.mod("leader") == action.old.mod_revision and me.lease_id in etcd.leases
    if holds:
        etcd.write({"leader": (me.name, me.lease_id)})
    return holds


def release_leader(etcd: Etcd, me: Claimant, action: actions.ReleaseLeader) -> bool:
    """The lead is not mine any more; done as well if it was not mine before."""
    is_held = action.leader_revision in (0, etcd.mod("leader"))
    if leads(etcd, me) and etcd.get("term") == action.term and is_held:
        puts: dict[str, tuple[object, int]] = {"released": (action.term, 0)}
        if action.parting is not None:
            puts["failover"] = (Request(leader=me.name, offer=action.parting), 0)
        etcd.write(puts, ("leader",))
        return True
    return not leads(etcd, me)


def put_offer(etcd: Etcd, me: Claimant, action: actions.PutOffer) -> bool:
    present = etcd.get("failover")
    if leads(etcd, me) and present is not None and present.offer == action.offer:
        return True
    is_held = action.leader_revision in (0, etcd.mod("leader"))
    holds = leads(etcd, me) and is_held and etcd.mod("failover") == action.request_revision
    if holds:
        etcd.write({"failover": (Request(leader=me.name, candidate=action.successor, offer=action.offer), 0)})
    return holds


def withdraw_offer(etcd: Etcd, me: Claimant, action: actions.WithdrawOffer) -> bool:
    if not leads(etcd, me):
        return False
    if "failover" not in etcd.keys:
        return True
    holds = etcd.mod("failover") == action.request_revision
    if holds:
        etcd.write({"leader": (me.name, me.lease_id)}, ("failover", "ballots/"))
    return holds


def clear_request(etcd: Etcd, _me: Claimant, action: actions.ClearRequest) -> bool:
    holds = etcd.mod("failover") == action.request_revision
    if holds:
        etcd.write({}, ("failover",))
    return holds


def put_ballot(etcd: Etcd, me: Claimant, ballot: Ballot, leader_revision: int) -> int | None:
    """Revision of the ballot; 0 when the lease is gone, None when the leader key is another one."""
    if me.lease_id not in etcd.leases:
        return 0
    if etcd.mod("leader") != leader_revision:
        return None
    etcd.write({f"ballots/{me.name}": (ballot, me.lease_id)})
    return etcd.revision


def put_member(etcd: Etcd, me: Claimant, action: actions.PutMember) -> bool:
    holds = me.lease_id in etcd.leases
    if holds:
        etcd.write({f"members/{me.name}": (action.member, me.lease_id)})
    return holds


def put_as_leader(etcd: Etcd, me: Claimant, key: str, value: object, expected_revision: int | None) -> bool:
    """While I lead: that key has that value, if it has not been written since (None: in any case)."""
    holds = leads(etcd, me) and expected_revision in (None, etcd.mod(key))
    if holds and etcd.get(key) != value:
        etcd.write({key: (value, 0)})
    return holds


def put_request(etcd: Etcd, request: Request) -> bool:
    """What an operator's tool writes; one that stands is not written over."""
    holds = "failover" not in etcd.keys
    if holds:
        etcd.write({"failover": (request, 0)})
    return holds


def term_of(etcd: Etcd) -> Term:
    return Term(etcd.get("term", 0))


def _leads_by(etcd: Etcd, me: Claimant) -> bool:
    entry = etcd.keys.get("leader")
    return entry is not None and (entry.value, entry.lease_id) == (me.name, me.lease_id)
