"""Two timelines of one number are told apart by the terms in which they were begun (docs/adr/0018)."""

from __future__ import annotations

import pytest

from core.leader import NOW, TERM, leading, primary_server
from core.replica import NOTE, TIMELINE, cluster, following, standby, wanted
from hamgr.core import actions, facts
from hamgr.core.actions import NoteBirth, TakeLeader
from hamgr.core.cluster import Ballot, Offer, Request, Status, SyncState
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.order import has_no_more_wal, is_ahead_of
from hamgr.core.pipeline import Passage, record_of
from hamgr.core.policy import Policy
from hamgr.core.reasons import Code
from hamgr.core.result import Outcome, Result
from hamgr.core.server import Birth, Phase, ServerView
from hamgr.core.state import Crash, Lease, State, Vacancy
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime, after

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
