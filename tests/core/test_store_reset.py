"""etcd came back with less than it had: what it has counts, and the primary that runs makes the cluster again."""

from __future__ import annotations

from dataclasses import replace

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


BY_PEERS = replace(renewed(4.0), peer_deadline=after(NOW, 4.0), promised_at=after(NOW, -1.0))


@pytest.mark.parametrize("lease", [renewed(0.1), renewed(4.0), BY_PEERS])
def test_a_leader_without_a_cluster_keeps_its_server_and_makes_the_cluster_again(lease: Lease) -> None:
    reset = facts.StoreReset(ClusterView(3, NOW))
    with_its_lease = observe(leading(seen(), lease), reset)
    assert has(actions.TakeInitialize, decide(with_its_lease, NOW))
    gone = observe(with_its_lease, facts.LeaseGone(lease.lease_id, NOW))
    assert has(actions.GrantLease, decide(gone, NOW))
    granted = observe(gone, facts.LeaseGranted(9, after(NOW, 4.9), 5.0, 5.0))
    for state in (with_its_lease, gone, granted):
        assert not any(action.lane is actions.Lane.SERVER for action in decide(state, NOW).actions)
    assert has(actions.TakeInitialize, decide(granted, NOW))


def test_a_leader_whom_the_backup_shows_leading_by_its_lease_leads_on() -> None:
    older = seen()._replace(revision=3, term=Term(1))
    state = observe(leading(seen(), renewed(0.1)), facts.StoreReset(older))
    assert state.lease.term == 1
    assert not has(actions.Fence, decide(state, NOW))
    assert not has(actions.StopServer, decide(state, NOW))


def test_where_the_backup_shows_another_leader_the_server_is_ended() -> None:
    older = seen()._replace(revision=3, leader=replace(LEADER, name="b", lease_id=8))
    state = observe(leading(seen(), renewed(0.1)), facts.StoreReset(older))
    assert has(actions.Fence, decide(state, NOW))


def test_what_a_member_has_promised_binds_it_all_the_same() -> None:
    promised = facts.Promised("b", after(NOW, 5.0))
    state = observe(observe(begun(primary_server(NOW)), promised), facts.StoreReset(ClusterView(1, NOW)))
    assert (state.promised_to, state.promised_until) == ("b", promised.until)


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
