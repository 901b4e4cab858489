"""A replica follows a leader once it is proven that its history goes on from here (docs/adr/0018)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.leader import NOW, TERM
from core.replica import DONE, NOBODY, NOTE, OF_LEADER, TIMELINE, cluster, following, standby, wanted
from hamgr.core import actions, facts
from hamgr.core.actions import CheckHistory, Clone, Follow, StartStandby, StopServer, Upstream
from hamgr.core.cluster import ClusterView
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.result import UNANSWERED, Outcome, Result
from hamgr.core.server import NO_BIRTH, Birth, ControlFile, DataDir, Phase, ServerView
from hamgr.core.state import Lease, Order, State
from hamgr.core.units import Instant, Lsn, Term, Timeline, after


def test_a_replica_of_the_leaders_own_timeline_is_pointed_there_once_it_receives_nothing_from_elsewhere() -> None:
    """Else it might, since it was looked at, have received what another server wrote on the next timeline."""
    assert wanted(following(standby(upstream="c.host:5432", birth=NOTE)), Follow) == [Follow(NOBODY)]
    assert wanted(following(standby(upstream="", streaming=False, birth=NOTE)), Follow) == [Follow(OF_LEADER)]


@pytest.mark.parametrize("upstream", ["c.host:5432", OF_LEADER.address])
@pytest.mark.parametrize("birth", [Birth(), Birth(Timeline(7), TERM)], ids=str)
def test_another_one_receives_nothing_more_until_it_was_compared(birth: Birth, upstream: str) -> None:
    server = standby(upstream=upstream, birth=birth)
    assert wanted(following(server), Follow, CheckHistory) == [Follow(NOBODY)]
    state = following(replace(server, upstream="", streaming=False))
    assert wanted(state, Follow, CheckHistory) == [CheckHistory(OF_LEADER)]
    compared = observe(state, facts.ActionEnded(CheckHistory(OF_LEADER), DONE, NOW))
    assert wanted(compared, Follow, CheckHistory) == [Follow(OF_LEADER)]


def elected() -> ClusterView:
    """`a` has the leader key, and has not been promoted yet."""
    view = cluster()
    return view._replace(members=(view.members[0]._replace(role="replica"), *view.members[1:]))


def test_it_is_not_compared_with_a_leader_that_is_no_primary_yet() -> None:
    state = following(standby(upstream="", streaming=False), elected())
    assert not wanted(state, Follow, CheckHistory)


@pytest.mark.parametrize("action", [Follow(OF_LEADER), StartStandby(OF_LEADER)], ids=["pointed there", "started so"])
def test_who_follows_a_leader_goes_on_while_it_leads_whatever_timelines_are_told(action: actions.Action) -> None:
    followed = observe(following(standby(birth=Birth(Timeline(7), TERM))), facts.ActionEnded(action, DONE, NOW))
    assert not wanted(followed, Follow, CheckHistory)
    assert wanted(followed._replace(cluster=cluster(term=Term(TERM + 1))), Follow) == [Follow(NOBODY)]


@pytest.mark.parametrize("action", [Follow(NOBODY), StartStandby(None)], ids=["nobody", "as before"])
def test_who_follows_nobody_or_whom_it_did_before_proves_nothing(action: actions.Action) -> None:
    assert observe(following(standby()), facts.ActionEnded(action, DONE, NOW)).checked_in == 0


def test_what_the_notes_proved_while_it_streams_holds_while_that_leader_leads() -> None:
    """A leader whose server is slow to answer tells of no timeline for a moment."""
    view = cluster()
    a = view.members[0]._replace(state="unknown", role="replica", timeline=Timeline(0), timeline_term=Term(0))
    silent = view._replace(revision=view.revision + 1, members=(a, *view.members[1:]))
    proven = observe(following(NO_SERVER, view), facts.Probed(standby(birth=NOTE)))
    assert not wanted(observe(proven, facts.ClusterSeen(silent)), Follow, CheckHistory)
    unproven = observe(following(NO_SERVER, view), facts.Probed(standby()))
    assert wanted(observe(unproven, facts.ClusterSeen(silent)), Follow) == [Follow(NOBODY)]
    elsewhere = observe(following(NO_SERVER, view), facts.Probed(standby(birth=NOTE, upstream="c.host:5432")))
    assert elsewhere.checked_in == 0


NO_SERVER = ServerView()


def test_a_receiver_that_may_not_have_ended_is_ended_again() -> None:
    state = following(standby(upstream="", streaming=False, birth=NOTE))
    failed = facts.ActionEnded(Follow(NOBODY), Outcome(Result.FAILED, "timeout"), Instant(NOW - 1.0))
    assert wanted(observe(state, failed), Follow, CheckHistory) == [Follow(NOBODY)]


def test_what_was_compared_is_not_copied_for_a_note_that_the_leader_has_lost() -> None:
    assert not wanted(following(standby(birth=FORKED), checked_in=TERM), Follow, StopServer, Clone)


FORKED = Birth(TIMELINE, Term(7))


def test_what_has_forked_from_the_leaders_timeline_is_copied_anew_even_if_it_streams() -> None:
    state = following(standby(birth=FORKED))
    assert wanted(state, StopServer, Clone) == [StopServer(state.policy.primary_stop_timeout_s)]
    down = standby(phase=Phase.STOPPED, answered=False, identity=None, birth=FORKED, upstream="", streaming=False)
    assert wanted(following(down), StartStandby, Clone) == [Clone(OF_LEADER, keep_aside=True)]


def test_what_has_forked_receives_nothing_more_while_there_is_nobody_to_be_copied_from() -> None:
    assert wanted(following(standby(birth=FORKED), elected()), Follow, StopServer, Clone) == [Follow(NOBODY)]


@pytest.mark.parametrize(
    ("code", "diverged", "must_clone"),
    [
        ("diverged", True, False),
        ("forked", False, True),
        ("wal_gone", False, True),
        ("wal_unreadable", False, True),
        ("timeout", False, False),
    ],
)
def test_what_pg_rewind_would_not_see_is_copied_anew(code: str, diverged: bool, must_clone: bool) -> None:
    for action in (CheckHistory(OF_LEADER), StartStandby(OF_LEADER, check_history=True)):
        ended = facts.ActionEnded(action, Outcome(Result.REFUSED, code), NOW)
        found = observe(following(standby(upstream="", streaming=False)), ended)
        assert (found.diverged, found.must_clone) == (diverged, must_clone)


def test_a_comparison_with_a_former_leader_proves_nothing_of_the_present_one() -> None:
    state = following(standby(upstream="", streaming=False))
    compared = observe(state, facts.ActionEnded(CheckHistory(Upstream("c", "c.host", 5432)), DONE, NOW))
    assert wanted(compared, Follow, CheckHistory) == [CheckHistory(OF_LEADER)]


@pytest.mark.parametrize(
    ("birth", "checks"),
    [(NOTE, False), (NO_BIRTH, True), (Birth(Timeline(7), TERM), True)],
    ids=["same", "?", "an older one"],
)
def test_a_standby_is_compared_before_it_starts_where_nothing_proves_its_timeline(birth: Birth, checks: bool) -> None:
    assert wanted(following(stopped(birth)), StartStandby) == [StartStandby(OF_LEADER, check_history=checks)]


def stopped(birth: Birth = NO_BIRTH, cluster_state: str = "shut down in recovery") -> ServerView:
    control = ControlFile("s", cluster_state, TIMELINE, Lsn(900), Lsn(900))
    return ServerView(
        Phase.STOPPED, DataDir.VALID, system_identifier="s", probed_at=NOW, timeline=TIMELINE, birth=birth,
        control=control,
    )  # fmt: skip


def test_a_replica_serves_reads_while_the_leader_cannot_be_asked_and_a_former_primary_waits() -> None:
    assert wanted(following(stopped(), elected()), StartStandby) == [StartStandby(NOBODY)]
    assert not wanted(following(stopped(cluster_state="in production"), elected()), StartStandby)


def test_a_replica_that_the_leader_did_not_answer_starts_by_itself() -> None:
    asked = StartStandby(OF_LEADER, check_history=True)
    failed = facts.ActionEnded(asked, Outcome(Result.FAILED, UNANSWERED), Instant(NOW - 1.0))
    assert wanted(observe(following(stopped()), failed), StartStandby) == [StartStandby(NOBODY)]
    former = observe(following(stopped(cluster_state="in production")), failed)
    assert wanted(former, StartStandby) == [asked]
    # It cannot stand by itself: the leader is asked again.
    for code in ("refused", "timeout", "broken"):
        alone = facts.ActionEnded(StartStandby(NOBODY), Outcome(Result.FAILED, code), Instant(NOW - 0.5))
        again = observe(observe(following(stopped()), failed), alone)
        assert wanted(again, StartStandby) == [asked]


@pytest.mark.parametrize(
    ("cluster_state", "asked", "upstream"),
    [
        ("shut down in recovery", True, None),
        ("shut down in recovery", False, NOBODY),
        ("in production", True, NOBODY),
    ],
    ids=["replica of a leader that has no etcd", "replica", "former primary"],
)
def test_without_etcd_it_starts_and_streams_from_whom_it_followed_only_where_a_leader_asks(
    cluster_state: str, asked: bool, upstream: Upstream | None
) -> None:
    state = following(stopped(cluster_state=cluster_state), store_failed_at=Instant(NOW - 10.0))
    promised = after(NOW, state.policy.ttl_s) if asked else None
    cut_off = state._replace(cluster=None, lease=Lease(), promised_until=promised)
    assert wanted(cut_off, StartStandby) == [StartStandby(upstream)]


@pytest.mark.parametrize(("birth", "upstream"), [(NOTE, OF_LEADER), (NO_BIRTH, NOBODY)], ids=["proven", "not proven"])
def test_an_ordered_restart_does_not_make_a_replica_follow_what_was_not_proven(
    birth: Birth, upstream: Upstream
) -> None:
    state = following(standby(birth=birth), orders=(Order(1, "restart", NOW),))
    (action,) = wanted(state, actions.RestartServer)
    assert isinstance(action, actions.RestartServer)
    assert action.upstream == upstream


@pytest.mark.parametrize("kind", [actions.Rewind, Clone])
def test_what_was_made_of_the_leaders_data_is_compared_with_it(kind: type) -> None:
    made = observe(following(standby(upstream="")), facts.ActionEnded(kind(OF_LEADER), DONE, NOW))
    assert made.checked_in == TERM
    elsewhere = observe(made, facts.ActionEnded(kind(Upstream("c", "c.host", 5432)), DONE, NOW))
    assert elsewhere.checked_in == 0


# -- without etcd ----------------------------------------------------------------------------------------------


def cut_off(**rest: Any) -> State:
    """`b`, which cannot reach etcd and whose stream has ended."""
    state = following(standby(streaming=False, birth=NOTE), store_failed_at=Instant(NOW - 2.0))
    return state._replace(**rest)


def test_a_replica_whose_stream_has_ended_waits_for_nobody_to_come_back_at_the_same_address() -> None:
    state = cut_off()
    assert wanted(state, Follow) == [Follow(NOBODY)]
    left = state._replace(server=replace(state.server, upstream=""))
    assert not wanted(left, Follow)
    assert wanted(left._replace(store_failed_at=None), Follow) == [Follow(OF_LEADER)]


@pytest.mark.parametrize(
    "rest",
    [
        {"store_failed_at": Instant(NOW - 0.5)},
        {"server": standby(birth=NOTE)},
        {"policy": Policy(pause=True)},
        {"promised_until": after(NOW, Policy().ttl_s - 1.0)},
    ],
    ids=["not for long", "streaming", "paused", "asked by a leader that has no etcd"],
)
def test_it_goes_on_while(rest: dict[str, Any]) -> None:
    assert not wanted(cut_off(**rest), Follow)


def test_a_leader_that_asks_no_more_is_waited_for_no_longer() -> None:
    assert wanted(cut_off(promised_until=after(NOW, Policy().ttl_s - 9.0)), Follow) == [Follow(NOBODY)]
