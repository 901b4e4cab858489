"""Two timelines of one number are told apart by the terms in which they were begun (docs/adr/0018)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.leader import NOW, TERM, leading, member, primary_server, seen
from hamgr.core import actions, facts
from hamgr.core.actions import CheckHistory, Clone, Follow, NoteBirth, StartStandby, StopServer, TakeLeader, Upstream
from hamgr.core.cluster import Ballot, ClusterView, Offer, Request, Status, SyncState
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.order import has_no_more_wal, is_ahead_of
from hamgr.core.pipeline import Passage, record_of
from hamgr.core.policy import Policy
from hamgr.core.reasons import Code
from hamgr.core.result import Outcome, Result
from hamgr.core.server import NO_BIRTH, Birth, ControlFile, DataDir, Phase, ServerIdentity, ServerView
from hamgr.core.state import Crash, Lease, Myself, Order, State, Vacancy
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime, after

TIMELINE = Timeline(8)
NOBODY = Upstream()
OF_LEADER = Upstream("a", "a.host", 5432)
DONE = Outcome(Result.DONE)
LEASE_ID = 9
NOTE = Birth(TIMELINE, TERM)
"""What the leader of these tests has noted."""


def cluster(**changes: Any) -> ClusterView:
    """`a` leads on TIMELINE, which it began in TERM; the roster is of all three."""
    a = member("a")._replace(role="primary", timeline=TIMELINE, timeline_term=TERM)
    b = member("b")._replace(lease_id=LEASE_ID)
    return seen()._replace(members=(a, b, member("c")), **changes)


def standby(**changes: Any) -> ServerView:
    """A replica that streams TIMELINE from `a`, and has no note."""
    server = ServerView(
        Phase.RUNNING,
        data_dir=DataDir.VALID,
        identity=ServerIdentity(1, 1),
        probed_at=NOW,
        answered=True,
        system_identifier="s",
        in_recovery=True,
        timeline=TIMELINE,
        received_lsn=Lsn(1000),
        upstream="a.host:5432",
        streaming=True,
    )
    return replace(server, **changes)


def following(server: ServerView, view: ClusterView | None = None, **rest: Any) -> State:
    """`b`, which follows `a`."""
    lease = Lease(LEASE_ID, after(NOW, 4.0))
    return State(Myself("b"), Policy(), cluster=view or cluster(), lease=lease, server=server, **rest)


def wanted(state: State, *kinds: type) -> list[actions.Action]:
    return [action for action in decide(state, NOW).actions if isinstance(action, kinds)]


# -- who notes what --------------------------------------------------------------------------------------------


def test_a_leader_names_its_timeline_by_its_term_once_it_was_seen_to_write() -> None:
    state = leading(cluster(), Lease(7, after(NOW, 4.0), TERM), server=primary_server(NOW, timeline=TIMELINE))
    assert wanted(state, NoteBirth) == [NoteBirth(NOTE)]
    assert not wanted(state._replace(verified_term=Term(0)), NoteBirth)


def test_what_is_noted_of_a_timeline_stays() -> None:
    older = Birth(TIMELINE, Term(7))
    server = primary_server(NOW, timeline=TIMELINE, birth=older)
    assert not wanted(leading(cluster(), Lease(7, after(NOW, 4.0), TERM), server=server), NoteBirth)
    assert not wanted(following(standby(birth=Birth(TIMELINE, Term(7)))), NoteBirth)


def test_a_replica_notes_what_the_leader_says_of_the_timeline_that_it_streams() -> None:
    server = standby(birth=Birth(Timeline(7), Term(3)))
    assert wanted(following(server, checked_in=TERM), NoteBirth) == [NoteBirth(NOTE)]
    # What it streams unproven may be the end of another history.
    assert not wanted(following(server), NoteBirth)
    assert not wanted(following(server, checked_in=Term(TERM - 1)), NoteBirth)


@pytest.mark.parametrize(
    "server",
    [
        standby(streaming=False),
        standby(upstream="c.host:5432"),
        standby(timeline=Timeline(7)),
        standby(timeline=Timeline(9)),
    ],
    ids=["silent", "from another", "an older one", "a newer one"],
)
def test_a_replica_notes_nothing_of_what_it_does_not_stream(server: ServerView) -> None:
    assert not wanted(following(server, checked_in=TERM), NoteBirth)


def test_a_note_is_known_at_once_but_not_of_a_server_that_has_ended_meanwhile() -> None:
    ended = facts.ActionEnded(NoteBirth(Birth(TIMELINE, Term(7))), Outcome(Result.DONE, value=NOTE), NOW)
    assert observe(following(standby()), ended).server.timeline_term == TERM
    down = standby(phase=Phase.STOPPED, answered=False)
    assert observe(following(down), ended).server.timeline_term == 0


# -- before a replica follows ----------------------------------------------------------------------------------


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


FORKED = Birth(TIMELINE, Term(7))


def test_what_has_forked_from_the_leaders_timeline_is_copied_anew_even_if_it_streams() -> None:
    state = following(standby(birth=FORKED), checked_in=TERM)
    assert wanted(state, StopServer, Clone) == [StopServer(state.policy.primary_stop_timeout_s)]
    down = standby(phase=Phase.STOPPED, answered=False, identity=None, birth=FORKED, upstream="", streaming=False)
    assert wanted(following(down), StartStandby, Clone) == [Clone(OF_LEADER, keep_aside=True)]


def test_what_has_forked_receives_nothing_more_while_there_is_nobody_to_be_copied_from() -> None:
    assert wanted(following(standby(birth=FORKED), elected()), Follow, StopServer, Clone) == [Follow(NOBODY)]


@pytest.mark.parametrize(
    ("code", "diverged", "must_clone"),
    [("diverged", True, False), ("forked", False, True), ("wal_gone", False, True), ("timeout", False, False)],
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


@pytest.mark.parametrize("code", ["timeout", "broken"])
def test_a_replica_that_the_leader_did_not_answer_starts_by_itself(code: str) -> None:
    asked = StartStandby(OF_LEADER, check_history=True)
    failed = facts.ActionEnded(asked, Outcome(Result.FAILED, code), Instant(NOW - 1.0))
    assert wanted(observe(following(stopped()), failed), StartStandby) == [StartStandby(NOBODY)]
    former = observe(following(stopped(cluster_state="in production")), failed)
    assert wanted(former, StartStandby) == [asked]
    # It cannot stand by itself: the leader is asked again.
    refused = facts.ActionEnded(StartStandby(NOBODY), Outcome(Result.REFUSED, "refused"), Instant(NOW - 0.5))
    again = observe(observe(following(stopped()), failed), refused)
    assert wanted(again, StartStandby) == [asked]


@pytest.mark.parametrize(
    ("cluster_state", "upstream"),
    [("shut down in recovery", None), ("in production", NOBODY)],
    ids=["replica", "primary"],
)
def test_without_etcd_a_replica_goes_on_with_whom_it_followed_and_a_former_primary_follows_nobody(
    cluster_state: str, upstream: Upstream | None
) -> None:
    state = following(stopped(cluster_state=cluster_state), store_failed_at=Instant(NOW - 10.0))
    cut_off = state._replace(cluster=None, lease=Lease())
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


# -- elections -------------------------------------------------------------------------------------------------


def ballot(name: str, term: int, lsn: int, timeline: int = TIMELINE) -> Ballot:
    return Ballot(name, Term(9), Timeline(timeline), Lsn(lsn), 1, Term(term))


def test_of_two_timelines_of_one_number_the_later_one_wins_however_long_the_other_is() -> None:
    former, later = ballot("a", 8, 5000), ballot("b", 9, 1000)
    assert is_ahead_of(later, former)
    assert not is_ahead_of(former, later)
    assert has_no_more_wal(former, later)
    assert not has_no_more_wal(later, former)


def test_positions_decide_where_the_timelines_are_one_or_not_known_to_be_two() -> None:
    for term in (9, 0):
        assert is_ahead_of(ballot("a", term, 5000), ballot("b", 9, 1000))
        assert not has_no_more_wal(ballot("a", term, 5000), ballot("b", 9, 1000))
    assert is_ahead_of(ballot("a", 8, 1, timeline=9), ballot("b", 9, 5000, timeline=8))


OFFER = Offer("a", TERM, TIMELINE, Lsn(1000), "server_crashed", timeline_term=TERM)


@pytest.mark.parametrize(
    ("term", "takes"), [(TERM, True), (Term(7), False), (Term(0), False)], ids=["it", "other", "?"]
)
def test_only_wal_that_is_proven_to_be_of_the_offered_timeline_is_what_was_offered(term: Term, takes: bool) -> None:
    view = cluster(request=Request(offer=OFFER, mod_revision=19))
    mine = Ballot("b", Term(2), TIMELINE, Lsn(5000), 1, term, 20)
    vacancy = Vacancy(Term(2), NOW, cold=False, voted_at=NOW, offered_in=19)
    state = following(standby(upstream=""), view._replace(ballots=(mine,)), vacancy=vacancy)
    assert bool(wanted(replace_members(state, "ab"), TakeLeader)) is takes


@pytest.mark.parametrize(("upstream", "offered"), [("a.host:5432", NOTE), ("c.host:5432", Birth()), ("", Birth())])
def test_whoever_follows_the_server_that_is_offered_is_on_its_timeline(upstream: str, offered: Birth) -> None:
    """Its own note may come too late for the vote."""
    view = cluster(request=Request(offer=OFFER, mod_revision=19))
    vacancy = Vacancy(Term(2), NOW, cold=False, offered_in=19)
    state = following(standby(upstream=upstream, streaming=False), view, vacancy=vacancy)
    (vote,) = wanted(state, actions.CastBallot)
    assert isinstance(vote, actions.CastBallot)
    assert vote.offered == offered


@pytest.mark.parametrize(("promoted_in", "term"), [(TERM, TERM), (Term(0), Term(0))], ids=["just now", "not at all"])
def test_an_offer_tells_the_timeline_of_a_server_that_was_promoted_a_moment_ago(promoted_in: Term, term: Term) -> None:
    crash = Crash(NOW, examined_at=NOW, end_timeline=TIMELINE, end_lsn=Lsn(1000))
    passage = Passage(promoted_in, "leader_lost", "c", seen_at=NOW, timeline=TIMELINE)
    server = primary_server(NOW, phase=Phase.CRASHED, answered=False, timeline=TIMELINE)
    state = leading(
        cluster(), Lease(7, after(NOW, 4.0), TERM), server=server, crash=crash, passage=passage, verified_term=Term(0)
    )
    (put,) = wanted(state, actions.PutOffer)
    assert isinstance(put, actions.PutOffer)
    assert put.offer.timeline_term == term


def replace_members(state: State, names: str) -> State:
    """Only these members are up: nobody else's ballot is waited for."""
    assert state.cluster is not None
    members = tuple(each for each in state.cluster.members if each.name in names)
    return state._replace(cluster=state.cluster._replace(members=members))


def test_whoever_led_last_in_synchronous_mode_may_lead_though_its_roster_left_it_out() -> None:
    """Nobody else may by the electorate, so nobody ever would."""
    view = cluster(leader=None, sync=SyncState("b", (), 0, 19), roster={"a": "", "c": ""})
    vacancy = Vacancy(Term(2), Instant(NOW - 60.0), cold=False)
    state = following(standby(streaming=False), view, vacancy=vacancy)
    state = state._replace(policy=Policy(synchronous_mode="on"))
    assert wanted(state, actions.CastBallot)
    by_another = state._replace(cluster=view._replace(sync=SyncState("a", ("b",), 0, 19)))
    assert decide(by_another, NOW).reason.code is Code.NOT_IN_ROSTER


# -- the record ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeline", "term", "at_risk"),
    [(8, 1, 0), (8, 7, None), (9, 0, None), (8, 0, None), (7, 7, 0)],
    ids=["the same", "another of its number", "a newer one", "not known", "an older one"],
)
def test_nothing_at_risk_is_said_only_of_a_timeline_that_is_here(timeline: int, term: int, at_risk: int | None) -> None:
    """Its own was begun in TERM, and the last leader led in a later one."""
    passage = after_loss(Status(Lsn(900), Timeline(timeline), {}, TERM_WRITTEN_IN + 1, timeline_term=Term(term)))
    assert record_of(passage.marked(own_lsn=Lsn(1000)), "b", WallTime(0.0), {}).at_risk_bytes == at_risk
    assert record_of(passage.marked(own_lsn=Lsn(880)), "b", WallTime(0.0), {}).at_risk_bytes == 20


def test_what_is_at_risk_is_not_known_where_the_last_leader_told_nothing_and_another_ones_position_stands() -> None:
    passage = after_loss(Status(Lsn(900), TIMELINE, {}, TERM_WRITTEN_IN - 1, timeline_term=TERM))
    for own_lsn in (880, 1000):
        assert record_of(passage.marked(own_lsn=Lsn(own_lsn)), "b", WallTime(0.0), {}).at_risk_bytes is None


TERM_WRITTEN_IN = 11
"""Revision in which the last leader took the key."""


def after_loss(status: Status) -> Passage:
    view = cluster(status=status, term=Term(7), term_revision=TERM_WRITTEN_IN)
    lost = facts.ClusterSeen(view._replace(revision=view.revision + 1, leader=None))
    passage = observe(following(standby(birth=NOTE), view), lost).passage
    assert passage is not None
    return passage


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
