"""The record of a change of leader holds every stage, in whatever order the answers come."""

from __future__ import annotations

from hamgr.core import actions, facts
from hamgr.core.cluster import ClusterView, LeaderKey
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.pipeline import Passage, Record, record_of
from hamgr.core.result import Outcome, Result
from hamgr.core.server import Phase, ServerView
from hamgr.core.server_outcomes import Promoted
from hamgr.core.state import Crash, Lease, Myself, State
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime, after

NOW = Instant(100.0)
TERM = Term(2)
TAKE = actions.TakeLeader(TERM, None, 0, 0, (), None, None)


def elected(at: Instant) -> State:
    """Its watch has told that it leads; what it sent has not been answered."""
    view = ClusterView(
        revision=20, seen_at=at, system_identifier="s", leader=LeaderKey("a", 7, 20), term=TERM, term_revision=20
    )
    passage = Passage(TERM, "switchover", "b", seen_at=NOW, fault_at=NOW, voted_at=NOW)
    return observe(State(Myself("a"), lease=Lease(7, after(NOW, 5.0)), passage=passage), facts.ClusterSeen(view))


def promoted(state: State, at: Instant) -> State:
    value = Promoted(Timeline(2), Lsn(10), at, at)
    return observe(state, facts.ActionEnded(actions.Promote(TERM), Outcome(Result.DONE, value=value), at))


def taken(state: State, at: Instant) -> State:
    return observe(state, facts.ActionEnded(TAKE, Outcome(Result.DONE), at))


def elect_and_promote(state: State) -> tuple[float | None, float | None]:
    assert state.passage is not None
    record = record_of(state.passage, "a", WallTime(0.0), {})
    ends = [record.stage(name).end_s for name in ("elect", "promote")]
    return ends[0], ends[1]


def test_a_promotion_that_ends_before_etcd_has_answered_is_measured_from_what_the_watch_told() -> None:
    state = promoted(elected(after(NOW, 1.0)), after(NOW, 2.0))
    assert elect_and_promote(state) == (1.0, 2.0)
    assert elect_and_promote(taken(state, after(NOW, 3.0))) == (1.0, 2.0)


def test_etcds_own_answer_counts_where_it_comes_in_time() -> None:
    state = promoted(taken(elected(after(NOW, 1.0)), after(NOW, 1.5)), after(NOW, 2.0))
    assert elect_and_promote(state) == (1.5, 2.0)


def records(state: State, at: Instant) -> list[Record]:
    return [action.record for action in decide(state, at).actions if isinstance(action, actions.PutRecord)]


def test_what_was_at_risk_is_on_record_also_where_the_elected_server_ends_before_it_accepts_a_write() -> None:
    """Its successor has all WAL of this one, and would say that nothing was."""
    state = elected(after(NOW, 1.0))
    assert state.passage is not None
    state = state._replace(passage=state.passage.marked(former_lsn=Lsn(500), own_lsn=Lsn(100)))
    assert not records(state, after(NOW, 1.5))
    ended = state._replace(crash=Crash(after(NOW, 2.0)), server=ServerView(Phase.CRASHED))
    (record,) = records(ended, after(NOW, 2.0))
    assert (record.term, record.at_risk_bytes, record.stage("writable").is_known) == (TERM, 400, False)

    put = facts.ActionEnded(actions.PutRecord(record), Outcome(Result.DONE), after(NOW, 2.1))
    known = observe(ended, put)
    assert not records(known, after(NOW, 2.2))
    (again,) = records(promoted(known, after(NOW, 3.0)), after(NOW, 3.1))
    assert again.stage("writable").is_known
