"""What is predicted stands beside what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

from hamgr.drill.faults import FAULTS
from hamgr.drill.predicted import SCENARIOS, gap_of, predicted_gaps
from hamgr.drill.run import Outcome
from hamgr.drill.summary import summarised
from hamgr.drill.verdict import Verdict

SAMPLE = Path(__file__).parents[2] / "config" / "hamgr.yml"


def outcome(gap_s: float, predicted: tuple[float, float, float] | None) -> Outcome:
    verdict = Verdict(gap_s, 0, 0, 10, (), (), ("a/1",))
    return Outcome("switchover", 5.0, verdict, predicted=predicted)


def test_every_fault_that_is_predicted_exists_and_its_scenario_too() -> None:
    gaps = predicted_gaps(Path(sys.executable), SAMPLE)
    assert set(SCENARIOS) <= set(FAULTS)
    for fault in SCENARIOS:
        best, typical, worst = gap_of(fault, gaps) or (1.0, 0.0, 0.0)
        assert 0 <= best <= typical <= worst


def test_fault_without_a_scenario_is_not_predicted() -> None:
    assert gap_of("host-lost+etcd-leader-killed", {"host_lost": (1.0, 2.0, 3.0)}) is None


def test_where_nothing_is_predicted_nothing_is_said(tmp_path: Path) -> None:
    assert predicted_gaps(Path(sys.executable), tmp_path / "nowhere.yml") == {}
    assert predicted_gaps(tmp_path / "no-python", SAMPLE) == {}


def test_median_outside_the_prediction_is_marked() -> None:
    (inside,) = summarised([outcome(0.2, (0.1, 0.2, 0.3))])
    (outside,) = summarised([outcome(0.4, (0.1, 0.2, 0.3))])
    (unknown,) = summarised([outcome(0.4, None)])
    assert (inside.is_as_predicted, outside.is_as_predicted, unknown.is_as_predicted) == (True, False, None)
    assert "100-300 ms (!)" in outside.cells()
    assert "100-300 ms" in inside.cells()
