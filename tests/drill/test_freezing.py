"""What is frozen stands still, and only the very same is thawed."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from hamgr.drill.errors import DrillError
from hamgr.drill.freezing import freeze, freeze_tree, state_of, title_of, wait_until_stuck
from hamgr.drill.subreaper import descendants
from tests.drill.test_hosts import wait_until


def family() -> subprocess.Popen[bytes]:
    parent = subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000 & wait"])
    wait_until(lambda: len(descendants(parent.pid)) == 2)
    return parent


def end(parent: subprocess.Popen[bytes]) -> None:
    for pid in (parent.pid, *descendants(parent.pid)):
        os.kill(pid, signal.SIGKILL)
    parent.wait()


def test_tree_stands_still_with_all_its_members_until_thawed() -> None:
    parent = family()
    members = [parent.pid, *descendants(parent.pid)]
    thaw = freeze_tree(parent.pid)
    try:
        wait_until(lambda: [state_of(pid) for pid in members] == ["T", "T", "T"])
        thaw()
        wait_until(lambda: "T" not in [state_of(pid) for pid in members])
    finally:
        end(parent)


def test_frozen_process_may_be_killed_before_it_is_thawed() -> None:
    parent = family()
    thaw = freeze([parent.pid])
    end(parent)
    thaw()
    assert title_of(parent.pid) == ""


def test_process_that_is_gone_is_not_frozen() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    freeze([gone.pid])()


def test_nobody_stuck_is_said_so() -> None:
    parent = family()
    try:
        with pytest.raises(DrillError, match="stuck"):
            wait_until_stuck(parent.pid, 0.2)
    finally:
        end(parent)
