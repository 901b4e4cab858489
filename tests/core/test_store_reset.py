"""etcd came back with less than it had: what it has counts, and the primary that runs makes the cluster again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.leader import LEADER, NOW, leading, member, primary_server, renewed, seen
from hamgr.core import actions, facts
from hamgr.core.cluster import ClusterView, Member
from hamgr.core.decide import Decision, decide
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.rules.election import COLD_WINDOW_S
from hamgr.core.server import ControlFile, DataDir, Phase, ServerView
from hamgr.core.state import Lease, Myself, State
from hamgr.core.units import Instant, Lsn, Timeline, after

CONTROL = ControlFile("s", "in production", Timeline(1), Lsn(900), Lsn(900))
STOPPED = ServerView(
    Phase.STOPPED, DataDir.VALID, control=CONTROL, system_identifier="s", timeline=Timeline(1), probed_at=NOW
)
EMPTY = ServerView(Phase.STOPPED, DataDir.EMPTY, probed_at=NOW)


def begun(server: ServerView, *members: Member, lease: Lease | None = None, ttl_s: float = 5.0) -> State:
    """A fresh agent of `a` that has just read an etcd in which nothing but these members stands."""
    lease = lease or Lease(7, after(NOW, 4.8), ttl_s=ttl_s)
    state = State(Myself("a", member("a").conn_url), Policy(ttl_s=ttl_s), server=server, lease=lease)
    return observe(state, facts.ClusterSeen(ClusterView(3, NOW, members=members)))


def with_data(name: str, timeline: int) -> Member:
    return member(name)._replace(timeline=Timeline(timeline))


def later(state: State, seconds: float) -> Decision:
    return decide(state, after(NOW, seconds))


def has(kind: type, decision: Decision) -> bool:
    return any(isinstance(action, kind) for action in decision.actions)


BY_PEERS = replace(renewed(4.0), deadline=after(NOW, -1.0), peer_deadline=after(NOW, 4.0), promised_at=after(NOW, -1.0))
EMPTY_VIEW = ClusterView(3, NOW)
OF_ITS_LEASE = seen()._replace(revision=3)
"""As `a` led on lease 7 when the backup was made."""


def reset(state: State, view: ClusterView = EMPTY_VIEW, lease_id: int = 0, deadline: Instant = NOW) -> State:
    return observe(state, facts.StoreReset(view, lease_id, deadline))


def following(server: ServerView, **rest: Any) -> State:
    """`a` has a lease, and `b` leads."""
    led_by_b = seen()._replace(leader=replace(LEADER, name="b", lease_id=8))
    lease = Lease(7, after(NOW, 4.8), ttl_s=5.0)
    return State(
        Myself("a", member("a").conn_url), Policy(ttl_s=5.0), cluster=led_by_b, lease=lease, server=server
    )._replace(**rest)


def touches_server(state: State, seconds: float = 0.0) -> bool:
    """Whether the running server, which is verified to be a primary at most, is done anything to."""
    return any(
        action.lane is actions.Lane.SERVER and not isinstance(action, actions.Promote)
        for action in later(state, seconds).actions
    )


# -- the member that led ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lease", [renewed(0.1), renewed(4.0), BY_PEERS])
def test_a_leader_without_a_cluster_keeps_its_server_and_makes_the_cluster_again(lease: Lease) -> None:
    with_its_lease = reset(leading(seen(), lease))
    assert has(actions.TakeInitialize, decide(with_its_lease, NOW))
    gone = observe(with_its_lease, facts.LeaseGone(lease.lease_id, NOW))
    assert has(actions.GrantLease, decide(gone, NOW))
    granted = observe(gone, facts.LeaseGranted(9, after(NOW, 4.9), 5.0, 5.0))
    assert has(actions.TakeInitialize, decide(granted, NOW))
    assert not any(touches_server(state) for state in (with_its_lease, gone, granted))


@pytest.mark.parametrize("lease", [renewed(0.1), BY_PEERS])
def test_a_leader_whom_the_backup_shows_leading_by_its_lease_leads_on(lease: Lease) -> None:
    state = reset(leading(seen(), lease), OF_ITS_LEASE, lease.lease_id, after(NOW, 4.8))
    assert state.lease.term == 1
    assert not touches_server(state)
    assert decide(state, NOW).may_renew


def test_it_is_the_same_if_the_loss_is_told_twice() -> None:
    once = reset(leading(seen(), renewed(0.1)))
    twice = reset(once, EMPTY_VIEW._replace(revision=2))
    assert has(actions.TakeInitialize, decide(twice, NOW))
    assert twice.lease.lease_id == once.lease.lease_id


def test_where_the_backup_shows_another_leader_the_server_is_ended() -> None:
    older = OF_ITS_LEASE._replace(leader=replace(LEADER, name="b", lease_id=8))
    assert has(actions.Fence, decide(reset(leading(seen(), renewed(0.1)), older), NOW))


def test_whatever_timeline_others_announce_it_goes_first() -> None:
    state = reset(leading(seen(), renewed(0.1)), EMPTY_VIEW._replace(members=(with_data("c", 9),)))
    assert has(actions.TakeInitialize, decide(state, NOW))


# -- all others --------------------------------------------------------------------------------------------------

REPLICA = replace(primary_server(NOW), in_recovery=True, written_lsn=Lsn(0), upstream="b.host:5432")


@pytest.mark.parametrize("server", [REPLICA, STOPPED])
def test_a_member_that_the_backup_shows_leading_does_not_lead_if_it_did_not(server: ServerView) -> None:
    """Who led until now may not have heard of it: its lease, and what was promised to it, last on."""
    state = reset(following(server), OF_ITS_LEASE, 7, after(NOW, 4.8))
    assert state.lease.lease_id == 0
    granted = observe(state, facts.LeaseGranted(9, after(NOW, 4.9), 5.0, 5.0))
    for each in (state, granted):
        wanted = {type(action) for action in decide(each, NOW).actions}
        assert not wanted & {actions.Promote, actions.StartPrimary, actions.TakeLeader}
    assert granted.promised_until == after(NOW, 5.0)


def test_nobody_campaigns_before_the_leader_that_was_lost_must_have_ended() -> None:
    vacant = OF_ITS_LEASE._replace(leader=None)
    state = reset(following(REPLICA), vacant)
    state = observe(state, facts.LeaseGranted(9, after(NOW, 60.0), 5.0, 5.0))
    assert not has(actions.CastBallot, later(state, 4.9))
    assert has(actions.CastBallot, later(state, 5.1))


def test_a_promise_outlasts_the_loss_and_is_never_shortened() -> None:
    assert reset(following(REPLICA, promised_until=after(NOW, 9.0))).promised_until == after(NOW, 9.0)
    assert reset(following(REPLICA, promised_until=after(NOW, 1.0))).promised_until == after(NOW, 5.0)
    led = leading(seen(), renewed(0.1))
    assert reset(led).promised_until == led.promised_until


@pytest.mark.parametrize("server", [EMPTY, replace(STOPPED, system_identifier="9", timeline=Timeline(9))])
def test_a_member_without_the_lost_clusters_data_never_makes_one(server: ServerView) -> None:
    """It may be the first to hear of the loss: a blank cluster, or another one, would take the primary's place."""
    state = reset(following(server))
    state = observe(state, facts.LeaseGranted(9, after(NOW, 9999.0), 5.0, 5.0))
    assert not has(actions.TakeInitialize, later(state, 0.0))
    assert not has(actions.TakeInitialize, later(state, 3600.0))
    put = [action for action in decide(state, NOW).actions if isinstance(action, actions.PutMember)]
    assert [action.member.timeline for action in put] == [0], "nor does it keep others from it"


def test_a_stopped_primary_keeps_its_promise_before_it_makes_the_cluster() -> None:
    state = reset(following(STOPPED, promised_until=after(NOW, 14.9)))
    state = observe(state, facts.LeaseGranted(9, after(NOW, 9999.0), 5.0, 5.0))
    assert not has(actions.TakeInitialize, later(state, 14.8))
    assert has(actions.TakeInitialize, later(state, 15.0))


def test_a_cluster_that_is_entered_again_ends_it() -> None:
    state = reset(leading(seen(), renewed(0.1)))
    assert state.reset is not None
    assert observe(state, facts.ClusterSeen(seen()._replace(revision=9))).reset is None


# -- agents that know of no cluster ----------------------------------------------------------------------------


def test_a_primary_that_runs_makes_the_cluster_again_at_once() -> None:
    decision = decide(begun(primary_server(NOW), with_data("b", 1)), NOW)
    assert has(actions.TakeInitialize, decision)
    assert not has(actions.Fence, decision)


@pytest.mark.parametrize(("ttl_s", "wait_s"), [(5.0, COLD_WINDOW_S), (30.0, 30.0)])
def test_a_primary_that_has_stopped_waits_for_one_that_may_still_run(ttl_s: float, wait_s: float) -> None:
    state = begun(STOPPED, ttl_s=ttl_s)
    waiting = later(state, wait_s - 0.1)
    assert not has(actions.TakeInitialize, waiting)
    assert waiting.wake_at is not None
    assert waiting.wake_at <= after(NOW, wait_s)
    again = observe(state, facts.ClusterSeen(ClusterView(4, after(NOW, 5.0))))
    assert has(actions.TakeInitialize, later(again, wait_s)), "it counts from when nothing was there first"


def test_the_wait_counts_anew_after_a_leader_was_seen() -> None:
    led = observe(begun(STOPPED), facts.ClusterSeen(ClusterView(4, after(NOW, 1.0), leader=replace(LEADER, name="b"))))
    assert led.unmade_since is None
    gone = observe(led, facts.ClusterSeen(ClusterView(5, after(NOW, 8.0))))
    assert gone.unmade_since == after(NOW, 8.0)


@pytest.mark.parametrize("server", [STOPPED, primary_server(NOW)])
def test_data_of_an_earlier_timeline_never_become_the_cluster(server: ServerView) -> None:
    assert not has(actions.TakeInitialize, later(begun(server, with_data("b", 2)), 3600.0))
    assert has(actions.TakeInitialize, later(begun(server, with_data("b", 1)), 3600.0))


def test_a_member_without_data_leaves_it_to_one_that_has_some() -> None:
    assert not has(actions.TakeInitialize, later(begun(EMPTY, with_data("b", 1)), 3600.0))
    assert has(actions.TakeInitialize, later(begun(EMPTY, member("b")), 0.0))


def test_what_is_older_than_what_is_known_is_still_no_news() -> None:
    """A late answer is not taken for a loss: only who read in order can tell the two apart."""
    state = leading(seen(), renewed(0.1))
    assert observe(state, facts.ClusterSeen(ClusterView(3, Instant(0.0)))) is state
