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
