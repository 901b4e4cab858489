"""The command line: what it refuses, and that a page can be made anew without measuring."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hamgr.bench.commands import EXIT_FAILED_RUNS, EXIT_NOT_CARRIED_OUT, EXIT_REFUSED, bench, variants_of
from hamgr.bench.variants import VARIANTS
from tests.bench.runs import failure, results_of, run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "all.json"
    results_of(run("hamgr-ttl5", "switchover"), path=path).save()
    return path


def call(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(bench, arguments)
    return answer.exit_code, answer.output


@pytest.mark.parametrize(("option", "known"), [("--managers", "patroni-tight"), ("--faults", "agent-killed")])
def test_an_unknown_name_is_refused_with_those_that_exist(option: str, known: str) -> None:
    code, said = call(option, "nonsense")
    assert code == EXIT_REFUSED
    assert "nonsense" in said
    assert known in said


def test_a_product_stands_for_all_its_variants() -> None:
    assert variants_of(["patroni", "hamgr-ttl2"]) == [
        name for name in VARIANTS if name.startswith("patroni") or name == "hamgr-ttl2"
    ]
    assert variants_of(["hamgr", "patroni", "pg_auto_failover"]) == list(VARIANTS)


def test_results_that_are_there_are_not_mixed_with_others_by_accident(results: Path) -> None:
    before = results.read_text()
    code, said = call("--results", str(results))
    assert code == EXIT_REFUSED
    assert "--resume" in said
    assert results.read_text() == before


def test_the_page_is_made_anew_without_measuring(results: Path) -> None:
    code, _ = call("--report-only", "--results", str(results))
    assert code == 0
    assert "Planned switchover" in results.with_suffix(".md").read_text()


def test_failed_runs_show_in_the_exit_status(results: Path) -> None:
    results_of(failure("hamgr-ttl5", "switchover", "died"), path=results).save()
    assert call("--report-only", "--results", str(results))[0] == EXIT_FAILED_RUNS


def test_without_runs_there_is_no_page(tmp_path: Path) -> None:
    code, said = call("--report-only", "--results", str(tmp_path / "none.json"))
    assert code == EXIT_NOT_CARRIED_OUT
    assert "holds no runs" in said
    assert not (tmp_path / "none.md").exists()
