"""One real run: a unit forms a cluster of hamgr on namespaces, switches over, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hamgr.bench.unit import Order
from hamgr.drill.plan import Place
from hamgr.drill.programs import missing_programs

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(missing_programs(Place.NETNS)), reason="programs for networks are missing"),
]


@pytest.fixture
def room() -> Iterator[Path]:
    base = Path("/tmp") / f"hamgr-bench-test-{os.getpid()}-{time.monotonic_ns()}"
    base.mkdir(mode=0o755)
    yield base
    os.system(f"rm -rf '{base}'")


def runs_of(order: Order) -> list[dict[str, Any]]:
    """What a unit tells of its runs."""
    ran = subprocess.run(
        [sys.executable, "-m", "hamgr.bench.unit"],
        input=json.dumps(asdict(order)) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=400,
    )
    messages = [json.loads(line) for line in ran.stdout.splitlines()]
    return [message["run"] for message in messages if "run" in message]


def test_a_switchover_of_hamgr_is_measured_by_the_client(room: Path) -> None:
    order = Order("hamgr-ttl5", ["switchover"], 1, str(room / "unit"), str(room / "failed"), "patroni")
    (run,) = runs_of(order)
    result = run["result"]
    assert result["leader_changes"] == 1
    assert result["came_back"]
    assert 0 < result["gap_s"] < run["took_s"]
    assert (result["two_primaries_s"], result["lost"], result["lost_pinned"]) == (0, 0, 0)
    assert result["settled_s"] is not None
    assert not list((room / "unit").iterdir())


def test_a_manager_that_is_not_installed_is_a_failed_run_with_its_reason(room: Path) -> None:
    order = Order("patroni-tight", ["switchover", "idle"], 1, str(room / "unit"), str(room / "failed"), "/no/patroni")
    for run in runs_of(order):
        assert "result" not in run
        assert "cannot run /no/patroni" in run["error"]
        assert (room / "failed" / run["logs"]).is_dir()
