"""etcd came back with less than it had: what it has counts, and the primary that runs makes the cluster again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.leader import LEADER, NOW, TERM, leading, member, primary_server, renewed, seen
from hamgr.core import actions, facts
from hamgr.core.cluster import ClusterView, Member, Offer, Request, Status, SyncState
from hamgr.core.decide import Decision, decide
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.rules.election import COLD_WINDOW_S
from hamgr.core.server import ControlFile, DataDir, Phase, ServerView
from hamgr.core.state import Crash, Failure, HandOver, Lease, Myself, State
from hamgr.core.units import Instant, Lsn, Term, Timeline, after

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
OF_ITS_LEASE = seen()._replace(revision=10)
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
    assert not has(actions.CastBallot, later(state, 6.9))
    assert has(actions.CastBallot, later(state, 7.1))


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


# -- a backup that shows what is long over -----------------------------------------------------------------------

STANDBY = replace(REPLICA, streaming=True)
OF_C = OF_ITS_LEASE._replace(leader=replace(LEADER, name="c", lease_id=9))


def leased(state: State) -> State:
    return observe(state, facts.LeaseGranted(11, after(NOW, 9999.0), 5.0, 5.0))


def electing(view: ClusterView, lost: ClusterView | None = None) -> State:
    """`a` follows `b` by the lost view; the backup shows that one, and then nobody leads."""
    before = following(STANDBY) if lost is None else following(STANDBY, cluster=lost)
    return leased(reset(before, view))


@pytest.mark.parametrize("server", [STANDBY, replace(STANDBY, streaming=False), replace(STOPPED, probed_at=NOW)])
def test_no_wal_is_given_up_for_a_leader_that_only_the_backup_shows(server: ServerView) -> None:
    state = leased(reset(following(server), OF_C))
    giving_up = {
        *(actions.Follow, actions.CheckHistory, actions.StopServer, actions.Rewind, actions.Clone),
        actions.StartStandby,
    }
    for seconds in (0.0, 2.0, 5.0, 6.9):
        assert not {type(action) for action in later(state, seconds).actions} & giving_up


def test_nor_by_the_leader_that_it_ends() -> None:
    state = reset(leading(seen(), renewed(0.1)), OF_C)
    assert has(actions.Fence, decide(state, NOW))
    down = observe(state, facts.Probed(replace(STOPPED, probed_at=after(NOW, 0.1))))
    assert not {type(action) for action in later(down, 1.0).actions} & {actions.StartStandby, actions.Rewind}


def test_a_leader_elected_since_is_followed_at_once() -> None:
    state = electing(OF_ITS_LEASE._replace(leader=None))
    elected = OF_ITS_LEASE._replace(revision=30, leader=replace(LEADER, name="c", lease_id=9, mod_revision=30))
    followed = observe(state, facts.ClusterSeen(elected))
    assert followed.reset is None
    assert has(actions.Follow, later(followed, 1.0))


def test_a_leader_that_writes_since_is_one_and_a_key_that_is_only_there_is_nobodys() -> None:
    """It may be on a lease of the backup, granted when ttl was longer."""
    of_b = OF_ITS_LEASE._replace(leader=replace(LEADER, name="b", lease_id=8))
    still_there = observe(electing(of_b), facts.ClusterSeen(of_b._replace(revision=30, seen_at=after(NOW, 60.0))))
    assert still_there.reset is not None
    written = of_b._replace(revision=31, status=Status(Lsn(1000), Timeline(1), mod_revision=31))
    assert observe(still_there, facts.ClusterSeen(written)).reset is None


def test_in_synchronous_mode_nobody_leads_on_by_a_backup() -> None:
    """Its electorate is not the one that commits wait for."""
    lost = seen()._replace(sync=SyncState("a", ("c",), 0, 15))
    state = reset(
        leading(lost, renewed(0.1)), OF_ITS_LEASE._replace(sync=SyncState("a", ("b",), 0, 4)), 7, after(NOW, 4.8)
    )
    assert has(actions.Fence, decide(state, NOW))
    assert state.lease.lease_id == 0
    emptied = reset(leading(lost, renewed(0.1)))
    assert has(actions.TakeInitialize, decide(emptied, NOW)), "nobody can be elected by what is not there"


def test_a_cluster_that_was_removed_and_made_again_is_no_backup() -> None:
    known = seen()._replace(term=Term(8))
    removed = observe(leading(known, renewed(0.1)), facts.ClusterSeen(ClusterView(25, NOW)))
    again = ClusterView(30, NOW, leader=LEADER, term=Term(1), term_revision=29)
    state = observe(removed, facts.ClusterSeen(again))
    assert state.lease.lease_id == LEADER.lease_id
    assert not has(actions.Fence, decide(state, NOW))


def test_an_offer_in_the_backup_does_not_shorten_the_wait() -> None:
    offer = Offer("b", TERM, Timeline(1), Lsn(900), "server_crashed")
    of_b = OF_ITS_LEASE._replace(
        leader=replace(LEADER, name="b", lease_id=8), request=Request(offer=offer, mod_revision=2)
    )
    state = electing(of_b)
    for seconds in (0.1, 3.0, 5.1):
        wanted = {type(action) for action in later(state, seconds).actions}
        assert not wanted & {actions.CastBallot, actions.TakeLeader}


def test_a_failover_that_was_asked_for_before_the_backup_is_nobodys_wish() -> None:
    forced = Request(candidate="a", allow_data_loss=True, mod_revision=2)
    vacant = OF_ITS_LEASE._replace(leader=None, request=forced, roster={"b": "", "c": ""})
    assert not has(actions.CastBallot, later(electing(vacant), 8.0))
    asked_now = vacant._replace(revision=40, request=replace(forced, mod_revision=40))
    state = observe(electing(vacant), facts.ClusterSeen(asked_now))
    assert has(actions.CastBallot, later(state, 8.0))


def test_the_electorate_is_the_one_that_was_lost_until_a_leader_writes_another() -> None:
    only = SyncState("b", ("c",), 0, 15)
    lost = seen()._replace(leader=replace(LEADER, name="b", lease_id=8), sync=only)
    older = OF_ITS_LEASE._replace(leader=None, sync=SyncState("b", ("a",), 0, 2))
    state = electing(older, lost)
    assert not has(actions.CastBallot, later(state, 8.0)), "it may lack what c has"
    renewed_since = older._replace(revision=40, sync=SyncState("b", ("a",), 0, 40))
    assert has(actions.CastBallot, later(observe(state, facts.ClusterSeen(renewed_since)), 8.0))


def test_after_it_all_are_heard_before_one_is_elected() -> None:
    assert reset(following(STANDBY), OF_ITS_LEASE._replace(leader=None)).vacancy is not None
    state = electing(OF_ITS_LEASE._replace(leader=None))
    assert state.vacancy is not None
    assert state.vacancy.cold


@pytest.mark.parametrize("revision", [21, 999])
def test_a_restore_that_took_care_of_revisions_shows_by_its_term(revision: int) -> None:
    known = seen()._replace(term=Term(8), leader=replace(LEADER, name="b", lease_id=8))
    backup = seen()._replace(revision=revision, term=Term(3))
    state = observe(following(STANDBY, cluster=known), facts.Renewed(7, after(NOW, 4.9), 5.0, backup))
    assert state.lease.lease_id == 0
    assert not has(actions.Promote, decide(leased(state), NOW))


# -- who had given the lead away ---------------------------------------------------------------------------------


def offered_away() -> list[State]:
    led = leading(seen(), renewed(0.1), server=STOPPED)
    offer = Offer("a", TERM, Timeline(1), Lsn(900), "server_crashed")
    crash = Crash(after(NOW, -1.0), examined_at=NOW, end_lsn=Lsn(900))
    unknown = Failure("PutOffer", "unknown", "no answer", 1, NOW)
    return [
        led._replace(cluster=seen()._replace(request=Request(offer=offer, mod_revision=9)), crash=crash),
        led._replace(crash=replace(crash, offered_at=NOW)),
        led._replace(crash=crash, failures=(unknown,)),
        led._replace(hand_over=HandOver(0, "b", NOW, NOW)),
    ]


@pytest.mark.parametrize("state", offered_away())
@pytest.mark.parametrize("view", [EMPTY_VIEW, OF_ITS_LEASE])
def test_a_leader_that_may_have_a_successor_waits_as_all_others(state: State, view: ClusterView) -> None:
    after_it = leased(reset(state, view, 7, after(NOW, 4.8)))
    for seconds in (0.0, 4.9):
        wanted = {type(action) for action in later(after_it, seconds).actions}
        assert not wanted & {actions.TakeInitialize, actions.StartPrimary, actions.Promote}


def test_a_leader_that_has_seen_another_since_is_no_more_the_one_that_led() -> None:
    state = reset(leading(seen(), renewed(0.1)))
    taken = observe(state, facts.ClusterSeen(EMPTY_VIEW._replace(revision=4, leader=replace(LEADER, name="c"))))
    assert taken.reset is not None
    assert not taken.reset.led


# -- agents that began after the loss ------------------------------------------------------------------------------


def test_a_lease_is_not_adopted_by_whom_a_promise_binds() -> None:
    """In a backup it may be the one by which this member led."""
    state = State(Myself("a", member("a").conn_url), Policy(ttl_s=5.0), server=REPLICA)
    bound = observe(state, facts.Promised("", after(NOW, 4.9)))
    assert observe(bound, facts.LeaseAdopted(7, after(NOW, 4.8), Term(0))).lease.lease_id == 0
    assert observe(bound, facts.LeaseAdopted(7, after(NOW, 4.8), TERM)).lease.lease_id == 7, "it leads, then"
    assert observe(state, facts.LeaseAdopted(7, after(NOW, 4.8), Term(0))).lease.lease_id == 7


def test_what_is_remembered_of_a_cluster_tells_a_member_without_data_that_there_was_one() -> None:
    state = State(Myself("a", member("a").conn_url), Policy(ttl_s=5.0), server=EMPTY)
    remembered = observe(state, facts.ClusterRecalled(seen()._replace(revision=0, leader=None)))
    state = leased(observe(remembered, facts.ClusterSeen(EMPTY_VIEW)))
    assert not has(actions.TakeInitialize, later(state, 3600.0))


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
