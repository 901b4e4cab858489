"""What the guard says never holds up what it does: stderr may hang, and whoever writes there may die."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hamgr.guard import keeper, loop
from hamgr.guard.keeper import Keeper
from hamgr.guard.layout import SharedPage, boottime_ns
from hamgr.guard.loop import Guard
from hamgr.guard.orders import Orders
from hamgr.guard.processes import read_process
from tests.guard.bench import Bench, descendants, is_alive, living, wait_until

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
    mute.to_end.append(hanging)
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
