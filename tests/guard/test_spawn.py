"""A child whose guard was killed before anybody could find it runs no program."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hamgr.guard.layout import boottime_ns
from hamgr.guard.spawn import spawn
from tests.guard.bench import SECOND, Bench, descendants, is_alive, living, wait_until

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


def test_a_child_that_cannot_be_started_for_want_of_descriptors_costs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes = [os.pipe2(os.O_CLOEXEC)]

    def one_more(_: int) -> tuple[int, int]:
        if not pipes:
            raise OSError("too many open files")
        return pipes.pop()

    reader, writer = pipes[0]
    monkeypatch.setattr(os, "pipe2", one_more)
    with pytest.raises(OSError, match="too many"):
        spawn(["/bin/true"], {}, lambda _: None)
    for each in (reader, writer):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each)


EXEC_HANGS = """
import os, sys, time
sys.path.append({repository!r})
execve = os.execve
def hangs(program, *rest):
    if program.endswith("/postgres"):
        open({hanging!r}, "w").close()
        while True:
            time.sleep(1)
    execve(program, *rest)
os.execve = hangs
from hamgr.guard.program import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_server_that_hangs_in_its_exec_is_killed_by_the_next_guard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, hanging = bench.root / "guard.py", bench.root / "hanging"
    program.write_text(EXEC_HANGS.format(repository=str(Path(__file__).parents[2]), hanging=str(hanging)))
    argv = bench.argv
    with monkeypatch.context() as patch:
        patch.setattr(bench, "argv", lambda *a, **k: [*argv(*a, **k)[:3], str(program), *argv(*a, **k)[4:]])
        bench.run("beat", agent_timeout_s=60)
    bench.page.arm(boottime_ns() + 3_600 * SECOND, 0, 0)
    bench.client.send("\0".join(["start", bench.postgres, "-c", "sleep 1000"]).encode())
    wait_until(hanging.exists, "it hangs")
    (server,) = (
        pid for pid in descendants(bench.page.guard_pid) if Path(f"/proc/{pid}/cwd").readlink() == bench.data_dir
    )
    bench.to_end.append(server)
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    bench.run("beat", agent_timeout_s=60)
    bench.page.deadline_ns = boottime_ns()
    bench.ask("ping")
    wait_until(lambda: bench.page.fenced_at_ns, "it has fenced")
    assert living([server]) == []
