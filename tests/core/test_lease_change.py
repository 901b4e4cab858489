"""A lease of another ttl takes the place of the one in hand, and no deadline is later than what etcd may hold to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.leader import primary_server
from hamgr.core import actions, facts
from hamgr.core.actions import Action, AskPeers, GrantLease, MoveLeader, ReleaseLeader
from hamgr.core.cluster import ClusterView, LeaderKey, Member, Request
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.outcomes import PeersAnswered
from hamgr.core.policy import Policy, margin_of, renew_interval_of
from hamgr.core.result import Outcome, Result
from hamgr.core.rules.lease import OVERDUE_S, PEERS_RETRY_S
from hamgr.core.scene import Scene
from hamgr.core.state import Lease, Myself, State, Vacancy
from hamgr.core.units import Instant, Term, after

NOW = Instant(1000.0)
OLD, NEW, KEY_REVISION = 7, 8, 5
LONG_S, SHORT_S = 300.0, 5.0
KEY = LeaderKey("a", OLD, KEY_REVISION)
UNKNOWN = Outcome(Result.UNKNOWN, "unknown", "no answer in time")
REFUSED = Outcome(Result.REFUSED, "compare", "a comparison did not hold")
FAILED = Outcome(Result.FAILED, "store", "etcd does not answer")


def view(leader: LeaderKey | None = KEY, **rest: Any) -> ClusterView:
    members = tuple(Member(name, f"postgres://{name}:5432/postgres", f"http://{name}:8008", "running") for name in "ab")
    given: dict[str, Any] = {
        "revision": 20,
        "seen_at": NOW,
        "members": members,
        "roster": dict.fromkeys("ab", ""),
        **rest,
    }
    return ClusterView(system_identifier="s", leader=leader, term=Term(1), term_revision=4, roster_revision=6, **given)


def leading(**rest: Any) -> State:
    """`a` leads on a lease of 300 s, of which little is used, and 5 s are configured by now."""
    server = primary_server(NOW)
    lease = Lease(OLD, after(NOW, LONG_S - margin_of(LONG_S)), Term(1), ttl_s=LONG_S, confirmed_at=NOW)
    given = {"cluster": view(), "lease": lease, "server": server, "verified_term": Term(1), "verified_at": NOW, **rest}
    return State(Myself("a", "postgres://a:5432/postgres"), Policy(ttl_s=SHORT_S), **given)


def following(**rest: Any) -> State:
    """As `a` would be if `b` led."""
    lease = Lease(OLD, after(NOW, LONG_S - margin_of(LONG_S)), ttl_s=LONG_S)
    server = replace(leading().server, in_recovery=True, streaming=True)
    return leading(**{"cluster": view(LeaderKey("b", 99, 5)), "lease": lease, "server": server, **rest})


def wanted(state: State, kind: type[Action], now: Instant = NOW) -> list[Action]:
    return [action for action in decide(state, now).actions if isinstance(action, kind)]


def tried(state: State, ttl_s: float = SHORT_S) -> State:
    """The move is on its way."""
    deadline = after(NOW, ttl_s - margin_of(ttl_s))
    state = observe(state, facts.ActionStarted(MoveLeader(KEY, ttl_s), NOW))
    return observe(state, facts.LeaseTried(NEW, deadline, ttl_s, ttl_s, KEY_REVISION))


def ended(state: State, outcome: Outcome) -> State:
    return observe(state, facts.ActionEnded(MoveLeader(KEY, SHORT_S), outcome, NOW))


def renewed(state: State, at: Instant, ttl_s: float = LONG_S) -> State:
    deadline = after(at, ttl_s - margin_of(ttl_s))
    assert state.cluster is not None
    return observe(state, facts.Renewed(OLD, deadline, ttl_s, state.cluster._replace(seen_at=at)))


# -- when ------------------------------------------------------------------------------------------------------


def test_a_leader_that_is_well_moves_its_key_to_a_lease_of_the_ttl_that_holds_now() -> None:
    assert wanted(leading(), MoveLeader) == [MoveLeader(KEY, SHORT_S)]
    assert wanted(leading(), GrantLease) == []


def test_a_member_that_does_not_lead_gets_another_lease() -> None:
    assert wanted(following(), GrantLease) == [GrantLease(SHORT_S)]
    assert wanted(following(), MoveLeader) == []


@pytest.mark.parametrize(
    "rest",
    [
        {"store_failed_at": NOW},
        {"cluster": view(request=Request(leader="a", mod_revision=9))},
        {"stopping_since": NOW},
        {"guard_alive": False},
        {"server": replace(leading().server, answered=False)},
        {"lease": replace(leading().lease, deadline=after(NOW, 1.0))},
        {"lease": replace(leading().lease, ttl_s=0.0)},
    ],
    ids=["etcd fails", "a request stands", "it stops", "no guard", "no answer", "the deadline is near", "not known"],
)
def test_the_key_stays_where_it_is_while_not_all_is_calm(rest: dict[str, Any]) -> None:
    """A new lease would give time to a leader that is to earn it."""
    assert wanted(leading(**rest), MoveLeader) == []


def test_the_key_stays_while_something_that_gives_it_away_may_be_on_its_way() -> None:
    sent = observe(leading(), facts.ActionEnded(ReleaseLeader(Term(1), KEY_REVISION), UNKNOWN, NOW))
    assert wanted(sent, MoveLeader) == []


@pytest.mark.parametrize(
    "rest",
    [
        {"store_failed_at": NOW},
        {"cluster": view(None)},
        {"vacancy": Vacancy(Term(2), NOW, cold=False)},
        {"cluster": view(LeaderKey("b", 99, 5), request=Request(leader="b", mod_revision=9))},
    ],
    ids=["etcd fails", "nobody leads", "an election is on", "a request stands"],
)
def test_a_lease_on_which_a_ballot_may_hang_stays(rest: dict[str, Any]) -> None:
    assert wanted(following(**rest), GrantLease) == []


def test_a_lease_that_etcd_made_longer_than_asked_is_not_asked_for_again() -> None:
    lease = replace(leading().lease, ttl_s=10.0, asked_ttl_s=SHORT_S)
    assert wanted(leading(lease=lease), MoveLeader) == []


def test_a_successor_learns_from_the_first_renewal_what_it_has_adopted() -> None:
    adopted = observe(leading(), facts.LeaseAdopted(OLD, after(NOW, 200.0), Term(1)))
    assert wanted(adopted, MoveLeader) == []
    assert wanted(renewed(adopted, NOW), MoveLeader) == [MoveLeader(KEY, SHORT_S)]


# -- the deadline ----------------------------------------------------------------------------------------------


def test_from_the_moment_of_the_try_the_shorter_of_both_leases_binds() -> None:
    """The transaction may take effect at any time, and nobody renews the lease that it moves the key to."""
    state = tried(leading())
    limit = after(NOW, SHORT_S - margin_of(SHORT_S))
    assert Scene(state, NOW).deadline == limit
    for outcome in (UNKNOWN, FAILED):
        assert Scene(renewed(ended(state, outcome), after(NOW, 1.0)), NOW).deadline == limit


def test_a_deadline_that_was_adopted_is_bound_by_the_try_as_well() -> None:
    """It stands as if the peers had vouched for it, and may be that of the old lease."""
    adopted = renewed(observe(leading(), facts.LeaseAdopted(OLD, after(NOW, 200.0), Term(1))), NOW)
    limit = after(NOW, SHORT_S - margin_of(SHORT_S))
    assert Scene(tried(adopted), NOW).deadline == limit
    moved = view(replace(KEY, lease_id=NEW, mod_revision=21), revision=21)
    assert Scene(observe(tried(adopted), facts.ClusterSeen(moved)), NOW).deadline == limit


def test_a_longer_lease_gives_no_more_time_before_the_key_is_on_it() -> None:
    lease = Lease(OLD, after(NOW, 4.0), Term(1), ttl_s=SHORT_S, confirmed_at=NOW)
    state = tried(leading(lease=lease)._replace(policy=Policy(ttl_s=LONG_S)), LONG_S)
    assert Scene(state, NOW).deadline == after(NOW, 4.0)
    at = after(NOW, 2.0)
    assert Scene(renewed(state, at, SHORT_S), at).deadline == after(at, SHORT_S - margin_of(SHORT_S))


def test_a_view_with_the_key_on_the_new_lease_makes_it_the_lease_that_counts() -> None:
    moved = view(replace(KEY, lease_id=NEW, mod_revision=21), revision=21)
    state = observe(ended(tried(leading()), UNKNOWN), facts.ClusterSeen(moved))
    assert (state.lease.lease_id, state.lease.ttl_s, state.lease.tried, state.lease.term) == (NEW, SHORT_S, None, 1)
    assert Scene(state, NOW).deadline == after(NOW, SHORT_S - margin_of(SHORT_S))
    assert Scene(state, NOW).holds_key
    assert renewed(state, after(NOW, 1.0)).lease == state.lease, "a renewal of the old one is of no use any more"


@pytest.mark.parametrize(
    "leader",
    [replace(KEY, mod_revision=21), None, LeaderKey("b", 99, 21)],
    ids=["written afresh", "gone", "another's"],
)
def test_a_view_with_a_key_that_was_written_since_makes_the_move_void(leader: LeaderKey | None) -> None:
    state = observe(tried(leading()), facts.ClusterSeen(view(leader, revision=21)))
    assert (state.lease.lease_id, state.lease.tried) == (OLD, None)


def test_a_view_with_the_key_as_it_was_tells_nothing() -> None:
    state = observe(tried(leading()), facts.ClusterSeen(view(revision=21)))
    assert state.lease.tried is not None


def test_a_refused_move_is_void_and_one_of_unknown_end_is_sent_again_on_the_same_lease() -> None:
    later = after(NOW, 0.5)
    for outcome in (UNKNOWN, FAILED):
        assert wanted(ended(tried(leading()), outcome), MoveLeader, later) == [MoveLeader(KEY, SHORT_S, NEW)]
    void = renewed(ended(tried(leading()), REFUSED), NOW)
    assert void.lease.tried is None
    assert Scene(void, NOW).deadline == after(NOW, LONG_S - margin_of(LONG_S))


def test_a_successor_is_bound_by_a_move_that_it_did_not_send() -> None:
    limit, promised = after(NOW, 3.0), after(NOW, 4.0)
    state = observe(leading(), facts.LeaseAdopted(OLD, promised, Term(1), facts.LeaseTried(NEW, limit)))
    assert (state.lease.deadline, Scene(state, NOW).deadline) == (limit, promised)
    assert renewed(state, NOW).lease.deadline == limit
    assert wanted(state, MoveLeader) == [MoveLeader(KEY, SHORT_S, NEW)]
    moved = view(replace(KEY, lease_id=NEW, mod_revision=21), revision=21)
    assert Scene(observe(state, facts.ClusterSeen(moved)), NOW).holds_key


def test_a_grant_that_comes_while_the_lead_may_be_taken_on_the_old_lease_is_not_used() -> None:
    take = actions.TakeLeader(Term(2), None, 0, 0, ())
    grant = facts.LeaseGranted(NEW, after(NOW, 4.0), SHORT_S, SHORT_S)
    assert observe(following(), grant).lease.lease_id == NEW
    taking = observe(following(), facts.ActionStarted(take, NOW))
    assert observe(taking, grant).lease.lease_id == OLD
    assert wanted(taking, GrantLease) == [], "nor is another one asked for"
    assert observe(leading(), grant).lease.lease_id == OLD


# -- the peers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl_s", [SHORT_S, LONG_S])
def test_peers_are_asked_once_a_renewal_is_overdue_whatever_the_ttl_in_force(ttl_s: float) -> None:
    lease = Lease(OLD, after(NOW, SHORT_S), Term(1), ttl_s=SHORT_S, asked_ttl_s=SHORT_S, confirmed_at=NOW)
    state = leading(lease=lease)._replace(policy=Policy(ttl_s=ttl_s, loop_wait_s=10.0))
    due_at = after(NOW, renew_interval_of(SHORT_S, 10.0) + OVERDUE_S)
    assert wanted(state, AskPeers, after(due_at, -0.01)) == []
    assert len(wanted(state, AskPeers, due_at)) == 1


def test_promises_of_the_peers_put_off_the_next_asking_like_a_renewal() -> None:
    state = leading()._replace(policy=Policy(ttl_s=LONG_S, loop_wait_s=1.0))
    at = after(NOW, 1.0 + OVERDUE_S)
    (asking,) = wanted(state, AskPeers, at)
    promised = Outcome(Result.DONE, value=PeersAnswered(at))
    state = observe(state, facts.ActionEnded(asking, promised, at))
    assert wanted(state, AskPeers, after(at, PEERS_RETRY_S)) == []
    assert len(wanted(state, AskPeers, after(at, 1.0 + OVERDUE_S))) == 1


def test_a_lease_without_the_key_does_not_put_off_the_asking() -> None:
    """It is renewed, but the lead rests on the promises alone until the key is taken again."""
    lease = replace(leading().lease, peer_deadline=after(NOW, 3.0), promised_at=after(NOW, -1.9))
    state = leading(lease=lease, cluster=view(None))
    assert len(wanted(state, AskPeers)) == 1
