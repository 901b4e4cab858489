"""`hamgr simulate` as it is called: what it shows, what it refuses, and with which status it ends."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hamgr.__main__ import cli
from hamgr.settings import DynamicSettings
from hamgr.sim.commands import simulate
from hamgr.sim.forecast import command as forecast_command
from hamgr.sim.forecast.environment import read_environment
from hamgr.sim.forecast.strike import Task, WorldResult
from hamgr.sim.forecast.sweep import parse_sweep

HAMGR_FILE = Path(__file__).parents[2] / "config" / "hamgr.yml"


def run(*words: str) -> Result:
    return CliRunner().invoke(simulate, [*words, "--jobs", "1"])


def test_a_forecast_of_the_sample_file_breaks_no_promise_and_adds_up(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    result = run(str(HAMGR_FILE), "--runs", "60", "--json", str(found))
    assert result.exit_code == 0, result.output
    assert "violations: 0" in result.output
    value = json.loads(found.read_text())
    assert value["violations"] == []
    causes = {each["key"]: each for each in value["causes"]}
    assert causes["host_lost"]["failover"]["p50"] > causes["server_killed"]["failover"]["p50"]
    parts = sum(each["down_s_per_year"] for key, each in causes.items() if key != "all")
    assert value["per_year"]["seconds_without_primary"] == pytest.approx(parts, abs=0.01)


def test_a_sweep_shows_that_a_longer_lease_costs_gap(tmp_path: Path) -> None:
    found, picture = tmp_path / "found.json", tmp_path / "it.svg"
    words = ("--sweep", "ttl=2..20/18", "--runs", "30", "--json", str(found), "--picture", str(picture))
    result = run(str(HAMGR_FILE), *words)
    assert result.exit_code == 0, result.output
    points = json.loads(found.read_text())["points"]
    assert [point["value"] for point in points] == [2.0, 5.0, 20.0]
    gaps = [point["gap"]["p50"] for point in points]
    assert gaps == sorted(gaps)
    assert points[0]["needless_per_year"] > points[-1]["needless_per_year"]
    text = picture.read_text()
    for words_drawn in ("this configuration: ttl 5", "ttl, seconds", "Needless failovers of the cluster"):
        assert words_drawn in text


def test_values_of_a_sweep_that_are_taken_as_another_are_left_out() -> None:
    sweep = parse_sweep("loop_wait=1..4/1", DynamicSettings(), read_environment(None, ()))
    assert [value for value, _ in sweep.points] == [1.0]
    assert any("loop_wait 3: left out, the same as 1" in note for note in sweep.notes)


def test_what_is_wrong_in_a_world_of_a_sweep_is_replayed_by_the_command_that_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """World 1 with ttl 4, of two values with two worlds each."""

    def broken(task: Task) -> WorldResult:
        is_it = (task.policy.ttl_s, task.plan.number) == (4.0, 1)
        assert is_it or not task.tells_story
        return WorldResult(task.plan.number, (), violation="two primaries" if is_it else "", story="a story")

    monkeypatch.setattr(forecast_command, "run_world", broken)
    words = (str(HAMGR_FILE), "--set", "round_trip={p50: 1ms, max: 1s}", "--runs", "12", "--sweep", "ttl=3..4/1")
    shown = next(line for line in run(*words).output.splitlines() if "replay: " in line)
    command = shlex.split(shown.partition("replay: ")[2])
    assert command[:2] == ["hamgr", "simulate"]
    again = run(*command[2:])
    assert again.exit_code == 1
    assert "a story" in again.output


def test_a_broken_promise_is_another_status_than_a_cluster_that_is_not_well_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"violation": WorldResult(0, (), violation="two primaries"), "problem": WorldResult(0, (), problem="slow")}
    for what, status in (("violation", 1), ("problem", 4)):
        monkeypatch.setattr(forecast_command, "run_world", lambda _task, what=what: found[what])
        assert run(str(HAMGR_FILE), "--runs", "2").exit_code == status


def test_a_replay_tells_the_story_of_one_world() -> None:
    result = run(str(HAMGR_FILE), "--runs", "60", "--seed", "2")
    assert result.exit_code == 0
    assert "FAULT" in result.output
    assert "takes the lead in term" in result.output
    assert "without a primary for" in result.output


@pytest.mark.parametrize(
    ("file_text", "words", "reason"),
    [
        (None, ("--members", "1"), "members"),
        (None, ("--set", "round_trip=oops"), "round_trip"),
        (None, ("--sweep", "ttl=30..2"), "range"),
        (None, ("--sweep", "colour=1..2"), "ttl"),
        (None, ("--sweep", "ttl"), "KEY=FROM..TO"),
        (None, ("--sweep", "handover_timeout=1..5"), "switchovers"),
        (None, ("--seed", "100000"), "--seed"),
        (None, ("--environment", "/nowhere.yml"), "/nowhere.yml"),
        ("name: x\n", (), "scope"),
        ("global_defs:\n  router_id: x\n", (), "global_defs"),
        ("", (), "empty"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_the_reason(
    tmp_path: Path, file_text: str | None, words: tuple[str, ...], reason: str
) -> None:
    file = HAMGR_FILE
    if file_text is not None:
        file = tmp_path / "member.yml"
        file.write_text(file_text)
    result = run(str(file), *words)
    assert result.exit_code == 4, result.output
    assert reason in result.output


def test_the_file_of_the_whole_command_line_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "member.yml"
    file.write_text("services: {}\n")
    result = CliRunner().invoke(cli, ["-c", str(file), "simulate"])
    assert result.exit_code == 4
    assert "services" in result.output


@pytest.mark.parametrize(
    ("line", "instead", "named"),
    [("# pause: false", "pause: true", "pause"), ("ttl: 5 ", "ttl: 1 ", "ttl")],
    ids=["paused", "a ttl that the rules refuse"],
)
def test_a_cluster_that_cannot_be_simulated_is_refused_with_the_key(
    tmp_path: Path, line: str, instead: str, named: str
) -> None:
    file = tmp_path / "member.yml"
    file.write_text(HAMGR_FILE.read_text().replace(line, instead))
    result = run(str(file))
    assert result.exit_code == 4
    assert named in result.output


@pytest.mark.parametrize(
    "words",
    [
        ("--compare", "--runs", "5"),
        ("--sizes", "3"),
        ("--picture", "it.svg"),
        ("--compare", "--members", "3"),
        ("--seed", "1", "--json", "it.json"),
        ("--seed", "1", "--sweep", "ttl=2..30", "--picture", "it.svg"),
    ],
)
def test_options_that_do_not_belong_together_are_wrong_usage(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
