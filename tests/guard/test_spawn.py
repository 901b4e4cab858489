"""A child whose guard was killed before anybody could find it runs no program."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guard.bench import Bench, is_alive, wait_until

# The guard is killed at once after the fork; or by the time at which the child has come to its directory.
KILLED_BEFORE_THE_NOTE = "note = lambda pid: (tell(pid), os.kill(os.getpid(), 9))"
KILLED_WHILE_THE_CHILD_WAITS_FOR_ITS_DISK = """
note, chdir = tell, os.chdir
def hangs(directory):
    guard = os.getppid()
    os.kill(guard, 9)
    while os.getppid() == guard:
        pass
    chdir(directory)
os.chdir = hangs
"""
NOT_KILLED = "note = tell"
GUARD = """
import os, signal, sys
from pathlib import Path
from hamgr.guard.spawn import spawn
data_dir = sys.argv[1]
def tell(pid):
    Path(data_dir, "pid").write_text(str(pid))
{killing}
pid, _ = spawn(["/bin/touch", "ran"], {{}}, note, data_dir)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(
    ("killing", "runs"),
    [(NOT_KILLED, True), (KILLED_BEFORE_THE_NOTE, False), (KILLED_WHILE_THE_CHILD_WAITS_FOR_ITS_DISK, False)],
    ids=["not killed", "killed before the note", "killed while the child waits for its disk"],
)
def test_a_child_runs_only_while_its_guard_lives_and_has_taken_note(bench: Bench, killing: str, runs: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", GUARD.format(killing=killing), str(bench.data_dir)], check=False)
    assert ended.returncode == (0 if runs else -signal.SIGKILL)
    pid = int(Path(bench.data_dir, "pid").read_text())
    wait_until(lambda: not is_alive(pid), "the child has ended")
    assert (bench.data_dir / "ran").exists() == runs
