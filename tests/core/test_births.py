"""Two timelines of one number are told apart by the terms in which they were begun (docs/adr/0018)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.leader import NOW, TERM, leading, member, primary_server, seen
from hamgr.core import actions, facts
from hamgr.core.actions import CheckHistory, Follow, NoteBirth, StartStandby, TakeLeader, Upstream
from hamgr.core.cluster import Ballot, ClusterView, Offer, Request, Status, SyncState
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.order import has_no_more_wal, is_ahead_of
from hamgr.core.pipeline import Passage, record_of
from hamgr.core.policy import Policy
from hamgr.core.reasons import Code
from hamgr.core.result import Outcome, Result
from hamgr.core.server import Birth, ControlFile, DataDir, Phase, ServerIdentity, ServerView
from hamgr.core.state import Crash, Lease, Myself, State, Vacancy
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
    assert wanted(following(standby(birth=Birth(Timeline(7), Term(3)))), NoteBirth) == [NoteBirth(NOTE)]


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
    assert not wanted(following(server), NoteBirth)


def test_a_note_is_known_at_once_but_not_of_a_server_that_has_ended_meanwhile() -> None:
    ended = facts.ActionEnded(NoteBirth(Birth(TIMELINE, Term(7))), Outcome(Result.DONE, value=NOTE), NOW)
    assert observe(following(standby()), ended).server.timeline_term == TERM
    down = standby(phase=Phase.STOPPED, answered=False)
    assert observe(following(down), ended).server.timeline_term == 0


# -- before a replica follows ----------------------------------------------------------------------------------


def test_a_replica_of_the_leaders_own_timeline_is_pointed_there_at_once() -> None:
    assert wanted(following(standby(upstream="c.host:5432", birth=NOTE)), Follow) == [Follow(OF_LEADER)]


@pytest.mark.parametrize("birth", [Birth(), Birth(TIMELINE, Term(7)), Birth(Timeline(7), TERM)], ids=str)
def test_another_one_receives_nothing_more_until_it_was_compared(birth: Birth) -> None:
    server = standby(upstream="c.host:5432", birth=birth)
    assert wanted(following(server), Follow, CheckHistory) == [Follow(NOBODY)]
    state = following(replace(server, upstream="", streaming=False))
    assert wanted(state, Follow, CheckHistory) == [CheckHistory(OF_LEADER)]
    compared = observe(state, facts.ActionEnded(CheckHistory(OF_LEADER), DONE, NOW))
    assert wanted(compared, Follow, CheckHistory) == [Follow(OF_LEADER)]


def test_it_is_not_compared_with_a_leader_that_is_no_primary_yet() -> None:
    view = cluster()
    elected = view._replace(members=(view.members[0]._replace(role="replica"), *view.members[1:]))
    state = following(standby(upstream="", streaming=False), elected)
    assert not wanted(state, Follow, CheckHistory)


def test_a_comparison_with_a_former_leader_proves_nothing_of_the_present_one() -> None:
    state = following(standby(upstream="", streaming=False))
    compared = observe(state, facts.ActionEnded(CheckHistory(Upstream("c", "c.host", 5432)), DONE, NOW))
    assert wanted(compared, Follow, CheckHistory) == [CheckHistory(OF_LEADER)]


@pytest.mark.parametrize(
    ("birth", "checks"), [(NOTE, False), (Birth(), True), (Birth(TIMELINE, Term(7)), True)], ids=["same", "?", "other"]
)
def test_a_standby_is_compared_before_it_starts_where_nothing_proves_its_timeline(birth: Birth, checks: bool) -> None:
    control = ControlFile("s", "shut down in recovery", TIMELINE, Lsn(900), Lsn(900))
    down = ServerView(
        Phase.STOPPED, DataDir.VALID, system_identifier="s", probed_at=NOW, timeline=TIMELINE, birth=birth,
        control=control,
    )  # fmt: skip
    assert wanted(following(down), StartStandby) == [StartStandby(OF_LEADER, check_history=checks)]


@pytest.mark.parametrize("kind", [actions.Rewind, actions.Clone])
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
    status = Status(Lsn(900), Timeline(timeline), timeline_term=Term(term))
    before = following(standby(birth=NOTE), cluster(status=status, term=Term(7)))
    assert before.cluster is not None
    state = observe(before, facts.ClusterSeen(before.cluster._replace(revision=21, leader=None)))
    assert state.passage is not None
    record = record_of(state.passage.marked(own_lsn=Lsn(1000)), "b", WallTime(0.0), {})
    assert record.at_risk_bytes == at_risk
    lacking = record_of(state.passage.marked(own_lsn=Lsn(880)), "b", WallTime(0.0), {})
    assert lacking.at_risk_bytes == 20
