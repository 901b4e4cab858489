"""A member's own wall clock steps, the machine's does not, and monotonic clocks stay true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hamgr.drill.clocks import WallClock, library, remove_traces

pytestmark = pytest.mark.skipif(library() is None, reason="libfaketime is not installed")

_READ = (
    "import json, os, time; "
    "print(json.dumps([os.getpid(), time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)]))"
)
HOUR_S = 3600


def clocks_of(clock: WallClock) -> tuple[float, float, float]:
    """How far a program's wall, monotonic and boot-time clocks are ahead of ours."""
    before = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    ran = subprocess.run(
        [sys.executable, "-c", _READ],
        env={**os.environ, **clock.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    pid, *read = json.loads(ran.stdout)
    remove_traces(pid)
    wall, monotonic, boot = (ours - theirs for ours, theirs in zip(read, before, strict=True))
    return wall, monotonic, boot


def test_clock_is_true_until_it_is_set(room: Path) -> None:
    assert 0 <= clocks_of(WallClock(room / "clock"))[0] < HOUR_S / 2


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
def test_wall_clock_is_off_and_the_others_are_not(room: Path, ahead_s: int) -> None:
    clock = WallClock(room / "clock")
    clock.set(ahead_s)
    wall, monotonic, boot = clocks_of(clock)
    assert abs(wall - ahead_s) < HOUR_S / 2
    assert 0 <= monotonic < HOUR_S / 2
    assert 0 <= boot < HOUR_S / 2
