"""A unit that dies is recorded and ends nothing, and what is interrupted is not recorded at all."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from hamgr.bench import campaign as campaign_module
from hamgr.bench.campaign import Campaign
from hamgr.bench.results import Run, load_results
from hamgr.bench.schedule import UnitPlan

_STUB = """
import json, sys, time
order = json.loads(sys.stdin.readline())
print(json.dumps({"say": "begins"}), flush=True)
for task in order["tasks"]:
    if task == "dies":
        sys.exit("no more of this")
    if task == "waits":
        time.sleep(600)
    run = {"variant": order["variant"], "task": task, "round": order["round"], "at": "", "took_s": 1.0}
    print(json.dumps({"run": {**run, "result": {"where": order["directory"]}}}), flush=True)
"""


class Ears:
    """Hears everything."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.runs: list[Run] = []
        self.began = threading.Event()

    def say(self, unit: UnitPlan, text: str) -> None:
        self.said.append(text)
        self.began.set()

    def done(self, run: Run) -> None:
        self.runs.append(run)

    def ended(self, unit: UnitPlan) -> None:
        self.said.append(f"{unit.variant} ended")


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ears: Ears) -> Campaign:
    monkeypatch.setattr(campaign_module, "_UNIT", (sys.executable, "-c", _STUB))
    return Campaign(tmp_path, Path("patroni"), load_results(tmp_path / "all.json"), ears)


def unit(variant: str, *tasks: str, alone: bool = False) -> UnitPlan:
    return UnitPlan(variant, 1, tasks, alone, disks=False)


def test_a_unit_that_dies_is_recorded_and_the_others_go_on(campaign: Campaign, tmp_path: Path) -> None:
    campaign.run([unit("a", "x", "dies", "y"), unit("b", "x")], jobs=1)
    runs = {(run.variant, run.task): run for run in load_results(tmp_path / "all.json").runs}
    assert runs["a", "x"].result is not None
    assert runs["b", "x"].result is not None
    for task in ("dies", "y"):
        assert runs["a", task].result is None
        assert runs["a", task].error == "the unit ended with status 1: no more of this"
        assert (tmp_path / runs["a", task].logs).read_text() == "no more of this\n"


def test_each_unit_has_a_directory_of_its_own(campaign: Campaign, ears: Ears) -> None:
    campaign.run([unit("a", "x"), unit("b", "x"), unit("a", "z", alone=True)], jobs=3)
    places = [run.result["where"] for run in ears.runs if run.result is not None]
    assert len(set(places)) == 3
    assert ears.runs[0].task == "z"


def test_an_interrupt_ends_all_units_and_records_nothing_of_them(campaign: Campaign, ears: Ears) -> None:
    def end_when_it_has_begun() -> None:
        ears.began.wait(30)
        campaign._end_all()

    ender = threading.Thread(target=end_when_it_has_begun)
    ender.start()
    campaign.run([unit("a", "waits"), unit("b", "x")], jobs=1)
    ender.join()
    assert ears.runs == []
