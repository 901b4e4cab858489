"""The guard kills the whole server at the deadline, and nothing before, and nothing else."""

import os
import signal
import subprocess

from hamgr.guard.layout import boottime_ns
from tests.guard.bench import SECOND, Bench, is_alive, living, start_ticks, wait_until


def test_deadline_kills_the_whole_tree_in_time(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    agent = bench.page.agent_pid
    bench.arm(tree[0], in_s=1.0)
    deadline_ns = bench.page.deadline_ns
    wait_until(lambda: bench.page.fenced_at_ns, "the guard has fenced")
    assert living(tree) == []
    assert bench.page.fence_began_ns < deadline_ns
    assert bench.page.fenced_processes == len(tree)
    assert not bench.page.armed
    assert bench.page.agent_pid == agent
    assert is_alive(agent)


def test_nothing_is_killed_while_the_deadline_moves_on(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    begun_ns = boottime_ns()
    bench.arm(tree[0], in_s=1.0)

    def renewed_for_three_deadlines() -> bool:
        bench.page.deadline_ns = boottime_ns() + SECOND
        return boottime_ns() - begun_ns > 3 * SECOND

    wait_until(renewed_for_three_deadlines, "three deadlines have gone by")
    assert all(map(is_alive, tree))
    assert bench.page.fence_began_ns == 0
    wait_until(lambda: bench.page.fenced_at_ns, "the last deadline is kept")
    assert living(tree) == []


def test_deadline_of_a_disarmed_server_means_nothing(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    bench.arm(tree[0], in_s=0.6)
    bench.page.disarm()
    past_ns = bench.page.deadline_ns + SECOND // 2
    wait_until(lambda: bench.page.guard_heartbeat_ns > past_ns, "the guard has gone past it")
    assert all(map(is_alive, tree))


def test_deadline_kills_when_agent_and_postmaster_are_stopped(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    bench.arm(tree[0], in_s=0.8)
    for pid in (bench.page.agent_pid, *tree):
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: bench.page.fenced_at_ns, "the guard has fenced")
    assert living(tree) == []


def test_orphans_of_a_dead_postmaster_are_killed(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    os.kill(tree[0], signal.SIGKILL)
    assert bench.answer() == ["exited", str(tree[0]), str(int(signal.SIGKILL))]
    assert bench.kill() > 0
    backends = [pid for pid in tree if os.path.exists(f"/proc/{pid}/exe") and is_alive(pid)]
    assert [pid for pid in backends if os.readlink(f"/proc/{pid}/exe") == bench.postgres] == []


def test_server_started_by_somebody_else_in_the_directory_is_killed(bench: Bench) -> None:
    bench.run("beat")
    script = "while :; do read -t 1 < <(:); done"
    inside = subprocess.Popen([bench.postgres, "-c", script], cwd=bench.data_dir, start_new_session=True)
    elsewhere = subprocess.Popen([bench.postgres, "-c", script], cwd=bench.root, start_new_session=True)
    bench.to_end += [inside.pid, elsewhere.pid]
    assert bench.kill() > 0
    assert inside.wait() == -signal.SIGKILL
    assert is_alive(elsewhere.pid)


def test_pid_of_another_start_time_is_not_the_postmaster(bench: Bench) -> None:
    bench.run("beat")
    bystander = subprocess.Popen(["sleep", "1000"])
    bench.to_end.append(bystander.pid)
    bench.page.arm(boottime_ns(), bystander.pid, start_ticks(bystander.pid) - 1)
    wait_until(lambda: bench.page.fenced_at_ns, "the guard has fenced")
    assert bench.page.fenced_processes == 0
    assert is_alive(bystander.pid)


def test_fork_storm_is_killed_to_the_last(bench: Bench) -> None:
    bench.run("beat")
    # Bounded, so that a fence that fails leaves no storm behind.
    storm = "for i in {1..200}; do setsid $0 -c 'for j in {1..200}; do (sleep 0.01); done' & sleep 0.02; done"
    tree = bench.start_server(storm, size=12)
    assert bench.kill() > 0
    left = [pid for pid, _ in living([int(name) for name in os.listdir("/proc") if name.isdigit()])]
    assert tree[0] not in left
    assert not [pid for pid in left if _program(pid) == bench.postgres]


def _program(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def test_server_can_be_started_again_after_a_fence(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    assert bench.kill() == len(tree)
    again = bench.start_server()
    assert all(map(is_alive, again))
