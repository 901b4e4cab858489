"""The simulated world: the same seed is the same world, seeds end well, and the checkers bite."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from hamgr.sim.run import Options, run_seed

DIGEST = """
import hashlib
from hamgr.sim.run import Options, run_seed
print(hashlib.sha256(run_seed(11, Options(), tells_story=True).story.encode()).hexdigest())
"""


@pytest.mark.parametrize("seed", range(12))
def test_faults_by_seed_break_nothing_and_the_cluster_comes_back(seed: int) -> None:
    result = run_seed(seed, Options())
    assert not result.violation, f"{result.story}\n{result.violation}"


def test_a_seed_is_the_same_world_in_another_process_with_another_hash_seed() -> None:
    mine = hashlib.sha256(run_seed(11, Options(), tells_story=True).story.encode()).hexdigest()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, env=environment, timeout=300
        )
        assert ran.stdout.strip() == mine


def test_a_replay_tells_the_story_of_the_faults() -> None:
    story = run_seed(11, Options(), tells_story=True).story
    assert "FAULT" in story
    assert "takes the lead in term" in story
