"""Who is not in the roster cannot be elected: nobody leads, or is handed the lead, who is not in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.leader import NOW, TERM, leading, member, primary_server, seen
from hamgr.core import facts
from hamgr.core.actions import AskPeers, CastBallot, PutMember, PutOffer, PutRoster, TakeLeader
from hamgr.core.cluster import Ballot, Offer, Request
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.precheck import successors, why_not
from hamgr.core.reasons import Code
from hamgr.core.result import Outcome, Result
from hamgr.core.rules.election import COLD_WINDOW_S
from hamgr.core.server import Phase
from hamgr.core.state import Crash, Lease, Myself, State, Vacancy
from hamgr.core.units import Lsn, Term, Timeline, after

HELD = Lease(7, after(NOW, 4.0), TERM)
CRASHED = Crash(NOW, examined_at=NOW, end_timeline=Timeline(1), end_lsn=Lsn(1000))


def test_a_leader_enters_itself_though_its_own_key_is_not_there() -> None:
    state = leading(seen(roster="bc", members="bc"), HELD)._replace(me=Myself("a", api_url=member("a").api_url))
    (put,) = [action for action in decide(state, NOW).actions if isinstance(action, PutRoster)]
    assert put.roster == {name: member(name).api_url for name in "abc"}


@pytest.mark.parametrize(("roster", "offers"), [("abc", True), ("", True), ("ac", False)])
def test_the_lead_is_offered_to_members_of_the_roster(roster: str, offers: bool) -> None:
    view = seen(roster=roster, members="ab")
    server = primary_server(NOW, phase=Phase.CRASHED, answered=False)
    state = leading(view, HELD, server=server, crash=CRASHED, verified_term=Term(0))
    assert any(isinstance(action, PutOffer) for action in decide(state, NOW).actions) is offers


def test_whoever_is_not_in_it_does_not_take_what_is_offered() -> None:
    view = seen(roster="ac")._replace(
        request=Request(offer=Offer("a", TERM, Timeline(1), Lsn(1000), "server_crashed"), mod_revision=19)
    )
    server = primary_server(NOW, in_recovery=True, received_lsn=Lsn(1000), written_lsn=Lsn(0))
    vacancy = Vacancy(Term(2), NOW, cold=False, offered_in=19)
    me = Myself("b", member("b").conn_url)
    state = State(me, Policy(), cluster=view, lease=Lease(9, after(NOW, 4.0)), server=server, vacancy=vacancy)
    assert decide(state, NOW).reason.code is Code.NOT_IN_ROSTER
    entered = state._replace(cluster=view._replace(roster=seen().roster))
    assert any(isinstance(action, CastBallot) for action in decide(entered, NOW).actions)


def test_a_switchover_to_it_is_refused_with_what_to_do() -> None:
    view = seen(roster="ac")
    known = tuple(each._replace(xlog_location=Lsn(1000)) for each in view.members)
    view = view._replace(members=known)
    assert [each.name for each in successors(view, Policy())] == ["c"]
    assert "try again" in why_not(view, Request(leader="a", candidate="b"), Policy())
    assert why_not(view, Request(leader="a", candidate="c"), Policy()) == ""


def test_what_failed_with_the_lease_that_is_gone_is_tried_at_once_on_the_next() -> None:
    """A member that was not seen for seconds could not be followed once it led."""
    state = State(Myself("b"), cluster=seen(), lease=Lease(9, after(NOW, 4.0)))
    for _ in range(6):
        for action in (PutMember(member("b")), CastBallot(Term(2), Lsn(0)), AskPeers(TERM, (), 5.0)):
            state = observe(state, facts.ActionEnded(action, Outcome(Result.FAILED, "store", "the lease is gone"), NOW))
    state = observe(state, facts.LeaseGranted(10, after(NOW, 5.0), 5.0, 5.0))
    assert [failure.kind for failure in state.failures] == ["AskPeers"]


@pytest.mark.parametrize(("keys", "takes"), [("bc", True), ("c", False), ("", False)], ids=str)
def test_where_its_own_key_is_gone_too_those_without_one_are_waited_for(keys: str, takes: bool) -> None:
    """Their leases ran out as its own did: whoever is back first is not the only one, nor the one with most WAL."""
    replica = primary_server(NOW, in_recovery=True, received_lsn=Lsn(1000), written_lsn=Lsn(0))
    led = State(Myself("b"), Policy(), cluster=seen(), lease=Lease(9, after(NOW, 60.0)), server=replica)
    members = tuple(member(name)._replace(lease_id=9) for name in keys)
    alone = seen()._replace(revision=30, leader=None, members=members)
    state = observe(led, facts.ClusterSeen(alone))
    ballots = (Ballot("b", Term(TERM + 1), Timeline(1), Lsn(1000), 1, mod_revision=31),)
    ballots += (Ballot("c", Term(TERM + 1), Timeline(1), Lsn(900), 1, mod_revision=31),) if "c" in keys else ()
    state = observe(state, facts.ClusterSeen(alone._replace(revision=31, ballots=ballots)))
    assert state.vacancy is not None
    state = state._replace(vacancy=replace(state.vacancy, voted_at=NOW))
    decision = decide(state, NOW)
    assert any(isinstance(action, TakeLeader) for action in decision.actions) is takes
    assert takes or decision.reason.code is Code.WAIT_BALLOTS
    later = decide(state, after(NOW, COLD_WINDOW_S + 0.1))
    assert any(isinstance(action, TakeLeader) for action in later.actions)
