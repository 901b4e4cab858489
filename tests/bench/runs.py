"""Runs as the results hold them, for tests of tables and schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hamgr.bench.results import Results, Run, Session

CALM: dict[str, Any] = {
    "gap_s": 0.02,
    "quiet_gap_s": 0.01,
    "two_primaries_s": 0.0,
    "lost": 0,
    "lost_pinned": 0,
    "acknowledged": 1000,
    "timelines_twice": [],
    "leaderships": ["db1/1"],
    "leader_changes": 0,
    "came_back": True,
    "held_s": 60.0,
    "settled_s": 0.5,
    "unsettled": "",
}
"""Of a fault that changed nothing."""

SESSION = Session("2026-01-02T03:04:05+00:00", "scripts/bench --runs 3", {"hamgr": "9.9", "cores": "2"})


def run(variant: str, task: str, number: int = 1, **figures: Any) -> Run:
    """A run with the figures of a calm one, but for those given."""
    return Run(variant, task, number, "2026-01-02T03:05:00+00:00", 70.0, result={**CALM, **figures})


def failure(variant: str, task: str, error: str, number: int = 1) -> Run:
    """A run that came to nothing."""
    return Run(variant, task, number, "2026-01-02T03:05:00+00:00", 3.0, error=error, logs="somewhere")


def results_of(*runs: Run, path: Path = Path("docs/benchmark.json")) -> Results:
    return Results(path, [SESSION], list(runs))
