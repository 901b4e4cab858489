"""A stand-in takes the place of a dead guard, and leaves it to one that the service manager starts."""

import os
import signal
import socket
import subprocess
import time

import pytest

from tests.guard.bench import DEAF_TREE, SECOND, Bench, is_alive, living, stat_fields, wait_until


def takes_over(bench: Bench) -> subprocess.Popen[bytes]:
    """A guard as a service manager starts it; true on return: it guards."""
    guard = bench.launch("beat")
    wait_until(lambda: bench.page.guard_pid == guard.pid, "it has taken over")
    bench.client = bench.connect()
    return guard


def test_stand_in_adopts_agent_and_server_and_is_nobodys_child(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    agent = bench.page.agent_pid
    bench.arm(tree[0], in_s=1000)
    bench.run_stand_in("beat")
    assert bench.page.agent_pid == agent
    assert all(map(is_alive, tree))
    assert bench.page.stand_in == 1
    assert os.getsid(bench.page.guard_pid) == bench.page.guard_pid
    assert int(stat_fields(bench.page.guard_pid)[1]) in (1, os.getpid())
    bench.page.deadline_ns = 1
    wait_until(lambda: not living(tree), "it holds the deadline")


def test_stand_in_that_is_not_needed_ends_at_once(bench: Bench) -> None:
    bench.run("beat")
    before = bench.page.guard_pid
    assert subprocess.run(bench.argv("beat", is_stand_in=True), check=False).returncode == 0
    assert bench.page.guard_pid == before
    assert bench.ask("ping") == ["pong", str(before)]
    assert bench.page.stand_in == 0


def test_stand_in_makes_room_and_touches_nothing(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    agent = bench.page.agent_pid
    bench.arm(tree[0], in_s=1000)
    bench.run_stand_in("beat")
    stand_in, beat = bench.page.guard_pid, bench.page.agent_heartbeat_ns
    takes_over(bench)
    wait_until(lambda: not is_alive(stand_in), "the stand-in is gone")
    assert bench.page.stand_in == 0
    assert bench.ask("ping") == ["pong", str(bench.page.guard_pid)]
    wait_until(lambda: bench.page.agent_heartbeat_ns > beat, "the agent goes on")
    assert bench.page.agent_pid == agent
    assert bench.agent_log() == [f"started {agent}"]
    assert all(map(is_alive, tree))
    assert bench.page.armed


def test_server_that_a_stand_in_started_outlives_it(bench: Bench) -> None:
    bench.run("beat")
    bench.run_stand_in("beat")
    tree = bench.start_server()
    takes_over(bench)
    assert all(map(is_alive, tree))
    bench.arm(tree[0], in_s=0.3)
    wait_until(lambda: not living(tree), "the new one holds the deadline")


def test_stand_in_ends_a_fence_before_it_makes_room(bench: Bench) -> None:
    """Stopped meanwhile, so that it finds both commands when it looks."""
    bench.run("beat")
    bench.run_stand_in("beat")
    os.kill(bench.page.guard_pid, signal.SIGSTOP)
    bench.client.send(b"kill")
    bench.client.send(b"retire")
    os.kill(bench.page.guard_pid, signal.SIGCONT)
    assert bench.answer() == ["error", "busy"]
    assert bench.answer() == ["killed", "0"]
    assert bench.ask("retire") == ["retiring"]


def test_guard_that_is_no_stand_in_does_not_retire(bench: Bench) -> None:
    bench.run("beat")
    assert bench.ask("retire") == ["error", "not a stand-in"]
    assert bench.ask("ping")[0] == "pong"


def test_guard_that_finds_the_lock_held_waits_before_it_gives_up(bench: Bench) -> None:
    """A service manager that starts it again at once does not spin: most of its life it slept."""
    bench.run("beat")
    used = os.times()
    began = time.monotonic()
    assert subprocess.run(bench.argv("beat"), capture_output=True, check=False).returncode == 3
    lasted_s = time.monotonic() - began
    cpu_s = os.times().children_user - used.children_user + os.times().children_system - used.children_system
    assert cpu_s < lasted_s / 4


def test_frozen_stand_in_is_not_waited_for_without_end(bench: Bench) -> None:
    bench.run("beat")
    bench.run_stand_in("beat")
    stand_in = bench.page.guard_pid
    os.kill(stand_in, signal.SIGSTOP)
    assert bench.launch("beat").wait(20) == 3
    assert bench.page.guard_pid == stand_in
    os.kill(stand_in, signal.SIGCONT)


def test_two_stand_ins_at_once_leave_one(bench: Bench) -> None:
    bench.run("beat")
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    rivals = [subprocess.Popen(bench.argv("beat", is_stand_in=True), stderr=bench.stderr) for _ in range(4)]
    assert [rival.wait(20) for rival in rivals] == [0, 0, 0, 0]
    wait_until(lambda: bench.page.guard_pid != bench.guard.pid, "one of them guards")
    bench.to_end.append(bench.page.guard_pid)
    bench.client = bench.connect()
    assert bench.ask("ping") == ["pong", str(bench.page.guard_pid)]
    assert len(bench.agent_log()) == 1


@pytest.mark.parametrize(("status", "ends"), [(0, True), (75, False)])
def test_agent_that_takes_its_leave_is_understood_by_a_guard_that_adopted_it(
    bench: Bench, status: int, ends: bool
) -> None:
    """It is nobody's child, so that its exit status is known from the page alone."""
    bench.run("beat")
    bench.run_stand_in("beat")
    agent, stand_in = bench.page.agent_pid, bench.page.guard_pid
    bench.page.agent_farewell = status + 1
    os.kill(agent, signal.SIGKILL)
    if ends:
        wait_until(lambda: not is_alive(stand_in), "the guard ends with it")
        assert bench.page.agent_pid == agent
    else:
        wait_until(lambda: bench.page.agent_pid != agent, "another agent runs")
        bench.wait_until_said("exited 75, next one at once")


def test_page_tells_who_starts_another_guard(bench: Bench) -> None:
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind(str(bench.root / "notify"))
    bench.run("beat")
    assert bench.page.supervised == 0
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    bench.guard = subprocess.Popen(
        bench.argv("beat"), stderr=bench.stderr, env={**os.environ, "NOTIFY_SOCKET": str(bench.root / "notify")}
    )
    wait_until(lambda: bench.page.supervised == 1, "it is supervised")


def test_page_tells_what_the_host_does_not_allow(bench: Bench) -> None:
    limited = ["prlimit", "--memlock=0:0", "--rtprio=0:0", "--nice=0:0", "--"]
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"]
    if os.geteuid() != 0:
        unprivileged = []
    for path in (bench.runtime_dir, bench.data_dir):
        os.chmod(path, 0o777)
    bench.guard = subprocess.Popen(
        [*limited, *unprivileged, "/usr/bin/python3", *bench.argv("beat")[1:]], stderr=bench.stderr
    )
    wait_until(lambda: "no raised priority" in bench.said(), "it complains")
    wait_until(lambda: "memory not locked" in bench.said(), "it complains of both")
    wait_until((bench.runtime_dir / "guard.sock").exists, "and runs")
    page = bench.open_page()
    assert (page.memory_locked, page.priority) == (0, 0)
    assert bench.said().count("memory not locked") == 1
    bench.guard.send_signal(signal.SIGKILL)


def test_sigterm_to_a_stand_in_is_the_orderly_stop(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server(DEAF_TREE, size=3)
    bench.run_stand_in("beat")
    stand_in, agent = bench.page.guard_pid, bench.page.agent_pid
    bench.page.arm(int(time.clock_gettime(time.CLOCK_BOOTTIME) * SECOND) + 1000 * SECOND, tree[0], 0)
    os.kill(stand_in, signal.SIGTERM)
    wait_until(lambda: not is_alive(agent), "the agent was told to end")
