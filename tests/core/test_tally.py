"""What is counted, and that it is counted once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamgr.core.decide import Decision
from hamgr.core.pipeline import Passage
from hamgr.core.policy import Policy
from hamgr.core.reasons import Code, because
from hamgr.core.scene import Scene
from hamgr.core.server import Phase, ServerView, Vital
from hamgr.core.state import Myself, State
from hamgr.core.tally import BOUNDS_S, Histogram, Tally, counted
from hamgr.core.units import Instant, Term

NOW = Instant(1000.0)
LEADS = Decision((), because(Code.LEADING, term=4), "steady", None, True)
REFUSES = replace(LEADS, may_renew=False)


def passage(**changes: object) -> Passage:
    """A host was lost at 100, the lead taken at 105, the first write done at 105.2."""
    made = Passage(
        term=Term(4),
        cause="leader_lost",
        former="two",
        seen_at=Instant(105.0),
        fault_at=Instant(100.0),
        voted_at=Instant(105.1),
        elected_at=Instant(105.11),
        promoted_at=Instant(105.15),
        writable_at=Instant(105.2),
        recorded=True,
    )
    return replace(made, **changes)


def after(*passages: Passage | None, tally: Tally | None = None) -> Tally:
    tally = Tally() if tally is None else tally
    for each in passages:
        state = State(Myself("one"), Policy(ttl_s=5.0), passage=each)
        tally = counted(tally, Scene(state, NOW), LEADS)
    return tally


def counts(tally: Tally) -> dict[str, int]:
    return {name: sum(histogram.counts) for name, histogram in tally.stages.items()}


def test_each_stage_of_a_change_is_counted_once_however_many_decisions_follow() -> None:
    tally = after(passage(), passage(), passage(checkpointed=True))
    assert counts(tally) == {"detect": 1, "fence": 0, "vote": 1, "elect": 1, "promote": 1, "writable": 1, "routed": 0}
    assert tally.stages["detect"].sum_s == pytest.approx(5.0)
    assert (sum(tally.gaps.counts), tally.gaps.sum_s) == (1, pytest.approx(5.2))


def test_a_change_is_not_counted_before_it_is_on_record() -> None:
    assert after(passage(recorded=False), passage(recorded=False)) == Tally()
    assert after(passage(writable_at=None), passage(writable_at=None)) == Tally()
    assert sum(counts(after(passage(recorded=False), passage())).values()) == 5


def test_the_route_is_added_when_it_is_known() -> None:
    tally = after(passage(), passage(routed_at=Instant(105.9)), passage(routed_at=Instant(105.9)))
    assert counts(tally)["routed"] == 1
    assert counts(tally)["promote"] == 1
    assert tally.stages["routed"].sum_s == pytest.approx(0.7)


def test_the_next_change_is_counted_as_well() -> None:
    tally = after(passage(), None, passage(term=Term(9)))
    assert counts(tally)["promote"] == 2
    assert sum(tally.gaps.counts) == 2


def test_a_gap_whose_fault_nobody_dated_is_not_counted() -> None:
    tally = after(passage(fault_at=None))
    assert sum(tally.gaps.counts) == counts(tally)["detect"] == 0
    assert counts(tally)["writable"] == 1


def test_stages_over_their_budget_are_counted() -> None:
    assert after(passage()).over_budget["promote"] == 0
    late = after(passage(promoted_at=Instant(115.0), writable_at=Instant(115.01)))
    assert {stage: n for stage, n in late.over_budget.items() if n} == {"promote": 1}


def test_a_refused_permit_is_counted_under_what_speaks_against_it() -> None:
    server = ServerView(phase=Phase.RUNNING, answered=True, in_recovery=False, probed_at=NOW)
    proven = tuple((vital, NOW) for vital in Vital)
    silent_disk = tuple((vital, Instant(NOW - 60) if vital is Vital.DATA_DISK else NOW) for vital in Vital)
    tally = Tally()
    for seen, vitals in ((server, silent_disk), (server, silent_disk), (replace(server, answered=False), proven)):
        state = State(Myself("one"), server=seen, vitals_at=vitals)
        tally = counted(tally, Scene(state, NOW), REFUSES)
    stopped = Decision((), because(Code.STOPPED), "stop", None, False)
    tally = counted(tally, Scene(State(Myself("one")), NOW), stopped)
    assert tally.refusals == {("leading", "data_disk"): 2, ("leading", "answer"): 1, ("stopped", ""): 1}


def test_a_granted_permit_is_not_counted() -> None:
    assert after(None).refusals == {}


@given(st.lists(st.floats(-1.0, 1000.0)))
def test_every_length_is_in_the_first_bucket_that_holds_it(lengths: list[float]) -> None:
    histogram = Histogram()
    for length in lengths:
        histogram = histogram.with_one(length)
    assert sum(histogram.counts) == len(lengths)
    for place, bound in enumerate(BOUNDS_S):
        assert sum(histogram.counts[: place + 1]) == sum(length <= bound for length in lengths)
    assert histogram.sum_s == pytest.approx(sum(max(0.0, length) for length in lengths))
