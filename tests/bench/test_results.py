"""The file of results: what was measured is there again, and no other file is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hamgr.bench.results import BadResults, load_results
from tests.bench.runs import SESSION, failure, results_of, run


def test_what_was_added_is_read_again(tmp_path: Path) -> None:
    results = results_of(path=tmp_path / "deeper" / "all.json")
    for each in (run("hamgr-ttl5", "switchover", gap_s=0.125), failure("patroni-tight", "idle", "died")):
        results.add(each)
        again = load_results(results.path)
        assert again.runs == results.runs
        assert again.sessions == [SESSION]


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert load_results(tmp_path / "none.json").runs == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "sessions": [], "runs": [{"a": 1}]}', json.dumps({"format": 0})]
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(BadResults, match=r"other\.json"):
        load_results(path)
    assert path.read_text() == text
