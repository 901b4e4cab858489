"""The guard keeps one agent alive."""

import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

from hamgr.guard.keeper import SECOND, back_off_ns
from tests.guard.bench import Bench, is_alive, living, wait_until


def test_killed_agent_is_replaced_and_the_server_does_not_notice(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    first = bench.page.agent_pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: bench.page.agent_pid != first and is_alive(bench.page.agent_pid), "another agent runs")
    assert bench.page.agent_restarts == 1
    assert all(map(is_alive, tree))


def test_frozen_agent_is_killed_and_replaced(bench: Bench) -> None:
    bench.run("beat", agent_timeout_s=0.5)
    first = bench.page.agent_pid
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: bench.page.agent_pid != first, "another agent runs")
    assert not is_alive(first)
    bench.wait_until_said("is frozen")


def test_guard_that_was_stopped_itself_does_not_blame_the_agent(bench: Bench) -> None:
    bench.run("beat", agent_timeout_s=0.5)
    first, guard_pid = bench.page.agent_pid, bench.page.guard_pid
    for pid in (guard_pid, first):
        os.kill(pid, signal.SIGSTOP)
    beat, turn = bench.page.agent_heartbeat_ns, bench.page.guard_heartbeat_ns
    subprocess.run(["sleep", "1.5"], check=True)
    os.kill(guard_pid, signal.SIGCONT)
    wait_until(lambda: bench.page.guard_heartbeat_ns > turn, "the guard runs again")
    os.kill(first, signal.SIGCONT)
    wait_until(lambda: bench.page.agent_heartbeat_ns > beat, "the agent beats again")
    assert bench.page.agent_pid == first
    assert "frozen" not in bench.said()


def test_what_a_dead_agent_left_in_its_session_ends_with_it(bench: Bench) -> None:
    bench.run("beat-with-program")
    written = bench.runtime_dir / "program"
    wait_until(lambda: written.exists() and written.read_text() != "", "the agent has started a program")
    program = int(written.read_text())
    os.kill(bench.page.agent_pid, signal.SIGKILL)
    wait_until(lambda: not living([program]), "the program has ended with its agent")


def test_back_off_starts_at_once_then_doubles_up_to_two_seconds() -> None:
    delays = [back_off_ns(short_lives) for short_lives in range(1, 12)]
    assert delays[:4] == [0, SECOND // 10, SECOND // 5, SECOND * 2 // 5]
    assert all(later >= earlier for earlier, later in pairwise(delays))
    assert delays[-1] == 2 * SECOND


def test_agent_that_dies_in_a_loop_is_backed_off(bench: Bench) -> None:
    bench.launch("exit", "1")
    wait_until(lambda: "next one in 0.4 s" in bench.said(), "the back-off grows")
    said = bench.said()
    assert said.index("at once") < said.index("in 0.1 s") < said.index("in 0.2 s") < said.index("in 0.4 s")


def test_replace_me_is_obeyed_at_once_every_time(bench: Bench) -> None:
    bench.launch("exit", "75")
    wait_until(lambda: len(bench.agent_log()) >= 4, "four agents have started")
    assert "next one in" not in bench.said()


def test_sigusr2_and_sighup_reach_the_agent(bench: Bench) -> None:
    bench.run("beat")
    first = bench.page.agent_pid
    os.kill(bench.page.guard_pid, signal.SIGHUP)
    wait_until(lambda: f"hup {first}" in bench.agent_log(), "the agent got SIGHUP")
    os.kill(bench.page.guard_pid, signal.SIGUSR2)
    wait_until(lambda: bench.page.agent_pid != first, "a fresh agent runs")
    bench.wait_until_said("exited 75, next one at once")


def test_refused_configuration_ends_the_guard_with_the_same_code(bench: Bench) -> None:
    assert bench.launch("exit", "78").wait(20) == 78


def test_refused_configuration_is_retried_while_a_server_runs(bench: Bench) -> None:
    bench.run("beat-then-exit", "78")
    bench.start_server()
    (bench.runtime_dir / "go").touch()
    wait_until(lambda: bench.said().count("exited 78, next one") >= 3, "it has been tried again")
    assert bench.guard is not None
    assert bench.guard.poll() is None


def test_agent_that_cannot_be_executed_is_said(bench: Bench) -> None:
    argv = bench.argv("beat")
    argv[argv.index("--") + 1] = "/no/such/python"
    bench.guard = subprocess.Popen(argv, stderr=bench.stderr)
    wait_until(lambda: "exited 127" in bench.said(), "the agent is dead")
    bench.wait_until_said("cannot start /no/such/python: [Errno 2]")


def blocked(pid: int) -> int:
    """The mask of signals that a process blocks."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["SigBlk"], 16)


def test_children_do_not_inherit_priority_signals_or_descriptors(bench: Bench) -> None:
    bench.run("beat")
    server = bench.start_server()[0]
    for pid in (server, bench.page.agent_pid):
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 0
    status = dict(line.split(":", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines())
    assert int(status["SigIgn"], 16) >> (signal.SIGPIPE - 1) & 1 == 0
    # bash itself blocks SIGCHLD while it waits, and for a moment everything while it forks.
    wait_until(lambda: blocked(server) & ~(1 << (signal.SIGCHLD - 1)) == 0, "no signal is blocked")
    targets = [os.readlink(f"/proc/{server}/fd/{fd}") for fd in os.listdir(f"/proc/{server}/fd")]
    assert not [target for target in targets if "guard" in target and "stderr" not in target]
    assert os.getsid(server) == server
    assert os.readlink(f"/proc/{server}/cwd") == str(bench.data_dir)
