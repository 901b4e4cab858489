"""The page of versions says what was run and what failed, and nothing else."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "versions"
OUTCOME = {
    "fault": "host-lost",
    "is_good": True,
    "error": "",
    "moved_needlessly": False,
    "stayed": False,
    "stalled": False,
    "verdict": {"lost": 3, "lost_pinned": 0, "two_primaries": [], "timelines_twice": []},
}


@pytest.fixture(scope="module")
def versions() -> ModuleType:
    loader = SourceFileLoader("versions_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader("versions_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


RUN = {"date": "2026-11-25", "commit": "abc"}
GOOD = {"name": "host-lost", "is_good": True, "wrong": ""}


def found(suite: str, **changes: Any) -> dict[str, Any]:
    return {
        "suite": suite,
        "versions": {"PostgreSQL": "17.1", "etcd": "3.5.1", "Python": "3.13.1"},
        "tests": {**RUN, "passed": 7, "failed": [], "skipped": 1, "reasons": ["no such thing here"]},
        "drills": {**RUN, "ttl_s": 5, "outcomes": [GOOD]},
        **changes,
    }


def test_a_drill_that_is_good_has_nothing_wrong_and_a_bad_one_says_what(versions: ModuleType) -> None:
    good = versions.in_short(OUTCOME)
    assert good == {"name": "host-lost", "is_good": True, "wrong": ""}
    bad = versions.in_short({**OUTCOME, "is_good": False, "stayed": True})
    assert bad["wrong"] == "stayed, 3 lost"
    unfinished = versions.in_short({**OUTCOME, "is_good": False, "verdict": None, "error": "no host"})
    assert unfinished["wrong"] == "no host"


def test_tests_are_counted_by_how_they_ended(versions: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite><testcase classname='a' name='well'/>"
        "<testcase classname='a' name='bad'><failure/></testcase>"
        "<testcase classname='a' name='broken'><error/></testcase>"
        "<testcase classname='a' name='out'><skipped message='why'/></testcase></testsuite></testsuites>"
    )
    assert versions.counted(report) == {
        "passed": 1,
        "failed": ["a::bad", "a::broken"],
        "skipped": 1,
        "reasons": ["why"],
    }


def test_the_page_names_failures_and_what_was_not_run(versions: ModuleType) -> None:
    failed = {**RUN, "passed": 6, "failed": ["a::bad"], "skipped": 0, "reasons": []}
    stalled = {**RUN, "ttl_s": 20, "outcomes": [{**GOOD, "is_good": False, "wrong": "stalled"}]}
    page = versions.page(
        [found("one"), found("two", tests=failed, drills=stalled), found("three", drills={}, tests={})]
    )
    assert "| host-lost | good | **bad**: stalled | not run |" in page
    assert "| ttl | 5 | 20 | not run |" in page
    assert "| failed | 0 | 1 | not run |" in page
    assert "- two, failed: `a::bad`" in page
    assert "- one, skipped: no such thing here" in page
