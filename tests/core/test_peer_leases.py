"""What its peers promised a leader holds for as long as it leads by that, and for nothing else. ADR 10."""

from __future__ import annotations

from dataclasses import replace

from core.leader import NOW, TERM, leading, renewed, seen
from hamgr.core import actions, facts
from hamgr.core.cluster import Offer, Request
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.peers import Claim, answer
from hamgr.core.policy import Policy
from hamgr.core.scene import Scene
from hamgr.core.state import Lease, Myself, State
from hamgr.core.units import Lsn, Timeline, after

OVERDUE_S = 2.5


def wished(state: State) -> dict[type, actions.Action]:
    return {type(action): action for action in decide(state, NOW).actions}


def test_an_offer_ends_the_leadership_by_peers_also_when_the_key_has_gone() -> None:
    """Taken again, the key would make the offer of a server that runs valid, and free everybody from his promise."""
    state = leading(seen(), replace(renewed(1.0), peer_deadline=after(NOW, 4.0)))
    gone = seen()._replace(revision=21, leader=None)
    assert Scene(observe(state, facts.ClusterSeen(gone)), NOW).leads_by_peers
    offer = Offer("a", TERM, Timeline(1), Lsn(900), "server_crashed")
    offered = observe(state, facts.ClusterSeen(gone._replace(request=Request(offer=offer, mod_revision=9))))
    assert not Scene(offered, NOW).leads_by_peers
    assert offered.lease.term == 0


def test_a_newcomer_is_entered_while_the_lease_is_renewed() -> None:
    put = wished(leading(seen(members="abcn"), renewed(0.1)))[actions.PutRoster]
    assert isinstance(put, actions.PutRoster)
    assert sorted(put.roster) == ["a", "b", "c", "n"]


def test_a_newcomer_is_not_entered_while_those_who_were_are_asked() -> None:
    """He would not be asked, and could lead before what they promised is over."""
    state = leading(seen(members="abcn"), renewed(OVERDUE_S))
    begun = wished(state)
    assert actions.AskPeers in begun
    assert actions.PutRoster not in begun
    asking = observe(state, facts.ActionStarted(begun[actions.AskPeers], NOW))
    assert actions.PutRoster not in wished(asking)


def test_nor_while_the_leader_leads_by_their_promises() -> None:
    by_peers = replace(renewed(OVERDUE_S), peer_deadline=after(NOW, 4.7), promised_at=after(NOW, -0.1))
    assert actions.PutRoster not in wished(leading(seen(members="abcn"), by_peers))
    again_by_etcd = replace(renewed(0.0), peer_deadline=after(NOW, 4.7), promised_at=after(NOW, -0.1))
    assert actions.PutRoster in wished(leading(seen(members="abcn"), again_by_etcd))


def test_whom_an_unanswered_entry_named_is_asked_until_another_roster_is_seen() -> None:
    state = leading(seen(), renewed(OVERDUE_S))._replace(roster_sent=("a", "b", "c", "d"))
    ask = wished(state)[actions.AskPeers]
    assert isinstance(ask, actions.AskPeers)
    assert [name for name, _url in ask.peers] == ["b", "c", "d"]
    other = observe(state, facts.ClusterSeen(seen(revision=8)._replace(revision=30)))
    ask = wished(other)[actions.AskPeers]
    assert isinstance(ask, actions.AskPeers)
    assert [name for name, _url in ask.peers] == ["b", "c"]


def test_nobody_is_bound_for_longer_than_leases_last() -> None:
    follower = State(Myself("b"), Policy(ttl_s=5.0), cluster=seen(), lease=Lease(8, after(NOW, 4.0)))
    assert answer(follower, NOW, Claim("a", TERM, 5.0)).until == after(NOW, 5.0)
    assert answer(follower, NOW, Claim("a", TERM, 30.0)).until == after(NOW, 30.0), "ttl was raised, perhaps"
    assert answer(follower, NOW, Claim("a", TERM, 86400.0)).until is None
    patient = follower._replace(policy=Policy(ttl_s=86400.0))
    assert answer(patient, NOW, Claim("a", TERM, 86400.0)).until == after(NOW, 86400.0)
