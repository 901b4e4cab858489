"""`hamgr simulate`: what cannot be read, makes no sense or cannot be written is refused, and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hamgr.__main__ import cli
from hamgr.sim.outputs import BadInput, Outputs

ROOT = Path(__file__).resolve().parents[2]
BAD_INPUT = 4
FEW = ("--runs", "12", "--jobs", "1")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *words], catch_exceptions=False)


# -- output ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        (*FEW, "--json", "/dev/full"),
        (*FEW, "--json", "/proc/found.json"),
        (*FEW, "--sweep", "ttl=5..6", "--picture", "/proc/it.svg"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_the_reason(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == BAD_INPUT
    path = words[-1]
    assert f"Error: cannot write {path}: {'No space left' if path == '/dev/full' else 'No such file'}" in result.output


@pytest.mark.parametrize(("path", "reason"), [("/nowhere/x.svg", "no directory"), ("{}", "is a directory")])
def test_a_path_that_cannot_be_written_is_refused_before_the_time_is_spent(
    tmp_path: Path, path: str, reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        Outputs(path.format(tmp_path)).check()


@pytest.mark.parametrize("words", [("--help",), ("simulate", *FEW), ("simulate", *FEW, "--json", "-")])
def test_standard_output_on_a_full_disk_is_one_error(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hamgr", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: cannot write the output: No space left on device"
    assert "Traceback" not in done.stderr


# -- a sweep ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        (f"ttl=2..{'9' * 400}", "ends after 86400 s"),
        ("ttl=2..1000000000/1", "ends after 86400 s"),
        ("ttl=2..80000/1", "more than 100 values: make the step longer"),
        ("ttl=2..30/0", "more than 100 values"),
        (f"ttl=2..30/0.{'0' * 400}1", "more than 100 values"),
    ],
)
def test_a_sweep_without_bounds_is_refused(sweep: str, reason: str) -> None:
    result = run("--sweep", sweep)
    assert result.exit_code == BAD_INPUT
    assert reason in result.output


@pytest.mark.parametrize("sizes", ["3,,5", "-3", "3.0", "\u0663", "100", "9" * 5000])
def test_sizes_of_clusters_that_nobody_compares_are_refused(sizes: str) -> None:
    result = run("--compare", "--sizes", sizes)
    assert result.exit_code == BAD_INPUT
    assert "--sizes: numbers of members from 3 to 99" in result.output


def test_more_processes_than_a_machine_bears_are_wrong_usage() -> None:
    assert run(*FEW, "--jobs", "1000000").exit_code == 2


# -- the environment -------------------------------------------------------------------------------------------

EMPTY = "is empty (write its value, or take the key out for what is assumed)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("members:", f"members: {EMPTY}"),
        ("faults:", f"faults: {EMPTY}"),
        ("faults: {}", f"faults: {EMPTY}"),
        ("faults: {host_lost: }", f"faults.host_lost: {EMPTY}"),
        ("faults: {host_lost: {per_year: }}", f"faults.host_lost.per_year: {EMPTY}"),
        ("members: .inf", "members: should be a valid integer"),
        ("members: true", "members: should be a valid integer"),
        ("packet_loss: .nan", "packet_loss: should be a finite number"),
        ("round_trip: .inf", "round_trip: is not a finite time"),
        ("round_trip: {p50: .nan, max: 1s}", "round_trip: is not a finite time"),
        ("sit_out: .inf", "sit_out: is not a finite time"),
        ("clone: 367d", "clone: a time is a year at most"),
        ("faults: {host_lost: {per_year: .inf}}", "faults.host_lost.per_year: should be a finite number"),
        ("faults: {host_lost: {per_year: true}}", "faults.host_lost.per_year: should be a valid number"),
        (
            "faults: {host_lost: {per_year: 1000000, lasts: 10min}}",
            "faults.host_lost: 1e+06 of 600 s in the mean are more than a year has",
        ),
        ("faults: {host_lost: {lasts: .inf}}", "faults.host_lost.lasts: is not a finite time"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(text)
    result = run("--environment", str(file))
    assert result.exit_code == BAD_INPUT, result.output
    assert f"error: {reason}" in result.output
