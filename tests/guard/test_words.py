"""What the guard says never holds up what it does: stderr may hang, and whoever writes there may die."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hamgr.guard import keeper, loop
from hamgr.guard.fence import Fence
from hamgr.guard.keeper import Keeper
from hamgr.guard.layout import SharedPage, boottime_ns
from hamgr.guard.loop import Guard
from hamgr.guard.orders import Orders
from hamgr.guard.processes import read_process
from hamgr.guard.words import Scribe
from tests.guard.bench import DEADLINE_S, Bench, descendants, is_alive, living, wait_until

REPOSITORY = Path(__file__).parents[2]
STDERR_HANGS = f"""
import os, signal, sys
sys.path.append({str(REPOSITORY)!r})
write = os.write
def write_or_hang(fd, content):
    while fd == 2:
        signal.pause()
    return write(fd, content)
os.write = write_or_hang
from hamgr.guard.program import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def mute(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A guard whose stderr is on a disk that hangs: no flag of the descriptor helps there."""
    program = bench.root / "guard.py"
    program.write_text(STDERR_HANGS)
    argv = bench.argv
    monkeypatch.setattr(bench, "argv", lambda *a, **k: [*argv(*a, **k)[:3], str(program), *argv(*a, **k)[4:]])
    bench.run("beat", agent_timeout_s=60)
    wait_until(lambda: scribe(bench), "there is one who hangs")
    bench.to_end.append(scribe(bench))
    return bench


def scribe(bench: Bench) -> int:
    """Its pid; 0: there is none at present."""
    for pid in descendants(bench.page.guard_pid):
        if is_alive(pid) and Path(f"/proc/{pid}/comm").read_text() == "hamgr-scribe\n":
            return pid
    return 0


def test_stderr_that_hangs_does_not_hold_up_the_kill_at_the_deadline(mute: Bench) -> None:
    tree = mute.start_server()
    mute.arm(tree[0], in_s=1.0)
    wait_until(lambda: mute.page.fenced_at_ns, "it has fenced")
    assert living(tree) == []
    assert mute.told("ping")[0] == "pong"


def test_stderr_that_hangs_does_not_hold_up_the_next_agent_nor_the_end(mute: Bench) -> None:
    agent = mute.page.agent_pid
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: mute.page.agent_pid not in (0, agent), "there is another one")
    wait_until(lambda: len(mute.agent_log()) == 2, "it runs")
    hanging = scribe(mute)
    os.kill(mute.page.guard_pid, signal.SIGTERM)
    assert mute.guard is not None
    assert mute.guard.wait(20) == 0
    assert is_alive(hanging)


def test_a_scribe_that_was_killed_is_replaced_and_ends_with_its_guard(bench: Bench) -> None:
    bench.run("beat")
    wait_until(lambda: scribe(bench), "there is one")
    first = scribe(bench)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: scribe(bench) not in (0, first), "there is another one")
    os.kill(bench.page.agent_pid, signal.SIGKILL)
    wait_until(lambda: "agent died of signal 9" in bench.said(), "it writes")
    second = scribe(bench)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(second, signum)
    assert bench.guard is not None
    bench.guard.terminate()
    bench.guard.wait(20)
    wait_until(lambda: not is_alive(second), "it has ended")


def spoken(script: str) -> subprocess.Popen[str]:
    """A program that says something as a guard does."""
    imports = "import os; from hamgr.guard.words import SCRIBE, say"
    argv = [sys.executable, "-c", f"{imports}\n{script}"]
    return subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


BEFORE_AND_BETWEEN = """
SCRIBE.keep(may_wait=False)
os.kill(SCRIBE.pid, 9)
os.waitpid(SCRIBE.pid, 0)
SCRIBE.pid = 0
say("while there is none")
SCRIBE._due_ns = 0
SCRIBE.keep(may_wait=False)
SCRIBE.end(may_wait=False)
"""


def test_what_is_said_while_there_is_no_scribe_the_next_one_writes() -> None:
    _, written = spoken(BEFORE_AND_BETWEEN).communicate(timeout=DEADLINE_S)
    assert written == "hamgr-guard: while there is none\n"


def test_what_nobody_reads_is_counted() -> None:
    script = """
SCRIBE.keep(may_wait=False)
os.kill(SCRIBE.pid, 19)
os.waitpid(SCRIBE.pid, os.WUNTRACED)
for _ in range(100):
    say("x" * 9000)
os.kill(SCRIBE.pid, 18)
while SCRIBE._lost:
    SCRIBE._has_told_loss()
SCRIBE.end(may_wait=False)
os.waitpid(SCRIBE.pid, 0)
"""
    _, written = spoken(script).communicate(timeout=DEADLINE_S)
    *lines, told = written.splitlines()
    assert {len(line) for line in lines} == {4095}
    assert told == f"hamgr-guard: {100 - len(lines)} lines were lost: nobody read them"


def test_where_no_scribe_can_be_forked_the_guard_writes_if_it_may_wait() -> None:
    script = """
def refuses():
    raise OSError("no more processes")
os.fork = refuses
SCRIBE.keep(may_wait=False)
say("first")
SCRIBE._due_ns = 0
SCRIBE.keep(may_wait={may_wait})
SCRIBE.end(may_wait=False)
"""
    for may_wait, expected in ((True, "hamgr-guard: first\n"), (False, "")):
        _, written = spoken(script.format(may_wait=may_wait)).communicate(timeout=DEADLINE_S)
        assert written == expected


def test_a_kernel_without_pidfds_does_not_change_how_a_guard_ends() -> None:
    script = """
def unknown(*_):
    raise OSError("function not implemented")
os.pidfd_open = unknown
SCRIBE.keep(may_wait=False)
SCRIBE.end(may_wait=False)
"""
    running = spoken(script)
    running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0


HAS_A_DEFECT = f"""
import sys
sys.path.append({str(REPOSITORY)!r})
from hamgr.guard import loop
from hamgr.guard.program import main
def stumbles(_):
    raise KeyError("stumbled")
loop.Guard._mind_deadline = stumbles
sys.exit(main(sys.argv[1:]))
"""


def test_a_defect_ends_the_guard_though_stderr_hangs(bench: Bench) -> None:
    program = bench.root / "guard.py"
    program.write_text(HAS_A_DEFECT)
    argv = [*bench.argv("beat")[:3], str(program), *bench.argv("beat")[4:]]
    ended = subprocess.run(argv, stderr=bench.stderr, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 1
    assert "hamgr-guard: ending because of a defect in hamgr: KeyError: 'stumbled'\n" in bench.said()
    assert " in stumbles\n" in bench.said()
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
    guard = subprocess.Popen(argv, stderr=writer)
    try:
        assert guard.wait(DEADLINE_S) == 1
    finally:
        guard.kill()
        guard.wait()
        os.close(reader)
        os.close(writer)


def test_a_scribe_ends_with_a_guard_that_is_killed(bench: Bench) -> None:
    bench.run("beat")
    wait_until(lambda: scribe(bench), "there is one")
    last = scribe(bench)
    assert bench.guard is not None
    bench.guard.kill()
    wait_until(lambda: not is_alive(last), "it has ended")


@pytest.fixture
def guard(bench: Bench) -> Guard:
    """In this process, and no turn of it has been."""
    return Guard(bench.open_page(), Orders(bench.argv()[4:]))


def test_at_the_deadline_it_kills_before_it_speaks(bench: Bench, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    server = subprocess.Popen(["sleep", "1000"], cwd=bench.data_dir)
    bench.to_end.append(server.pid)
    alive_when_said: list[object] = []
    monkeypatch.setattr(loop, "say", lambda *_: alive_when_said.append(living([server.pid])))
    process = read_process(server.pid)
    assert process is not None
    bench.page.arm(boottime_ns(), *process.identity)
    guard._turn()
    server.wait()
    assert alive_when_said
    assert alive_when_said[0] == []


def test_after_a_scribe_was_forked_the_guard_looks_once_as_for_a_kill(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the memory that the two share would be copied at the deadline."""
    looks: list[object] = []
    monkeypatch.setattr(Fence, "server_lives", lambda fence: looks.append(fence))
    for is_new in (False, True):
        monkeypatch.setattr(Scribe, "keep", lambda _, *, may_wait, is_new=is_new: is_new)
        guard._make_rounds(boottime_ns())
        assert len(looks) == is_new


def test_an_agent_that_froze_is_killed_before_that_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = subprocess.Popen(["sleep", "1000"])
    bench.to_end.append(agent.pid)
    alive_when_said: list[object] = []
    monkeypatch.setattr(keeper, "say", lambda *_: alive_when_said.append(living([agent.pid])))
    process = read_process(agent.pid)
    assert process is not None
    page: SharedPage = bench.open_page()
    kept = Keeper(page, str(bench.runtime_dir), [sys.executable], 1)
    kept.agent = process.identity
    page.agent_heartbeat_ns = 1
    kept.kill_if_frozen(boottime_ns())
    agent.wait()
    assert alive_when_said == [[]]
