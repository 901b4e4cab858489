"""The guard as PID 1 of a container: in a PID namespace of its own, where orphans come to it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hamgr.guard.layout import SharedPage
from tests.guard.bench import Bench, descendants, living, stat_fields, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")

_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
ORPHANS = "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 &); done; sleep 0.02; touch orphaned; exec sleep 1000"


def launch(bench: Bench, *agent: str) -> subprocess.Popen[bytes]:
    """The guard in its namespace. `bench.page` stays away: the pids on it are the namespace's, not ours."""
    bench.guard = subprocess.Popen([*_NAMESPACE, *bench.argv(*agent)], stderr=bench.stderr)
    return bench.guard


def run(bench: Bench, *agent: str) -> tuple[SharedPage, int]:
    """Its page, and the guard's pid as we see it, once the agent beats."""
    outer = launch(bench, *agent)
    wait_until((bench.runtime_dir / "guard.page").exists, "the page is there")
    page = SharedPage.open(str(bench.runtime_dir))
    wait_until(lambda: page.agent_heartbeat_ns, "the agent beats")
    assert page.guard_pid == 1
    bench.client = bench.connect()
    return page, descendants(outer.pid)[0]


def start(bench: Bench, script: str) -> None:
    assert bench.ask("start", bench.postgres, "-c", script)[0] == "started"


def zombies(pid: int) -> list[int]:
    return [each for each in descendants(pid) if stat_fields(each)[:1] == ["Z"]]


def test_orphans_are_reaped(bench: Bench) -> None:
    _, guard = run(bench, "beat")
    start(bench, ORPHANS)
    wait_until((bench.data_dir / "orphaned").exists, "they were left")
    wait_until(lambda: not zombies(guard) and len(descendants(guard)) == 3, "agent, server and scribe are left")


def test_signals_are_passed_on_and_the_end_is_that_of_the_agent(bench: Bench) -> None:
    page, guard = run(bench, "beat")
    agent = page.agent_pid
    os.kill(guard, signal.SIGHUP)
    wait_until(lambda: f"hup {agent}" in bench.agent_log(), "the agent got SIGHUP")
    os.kill(guard, signal.SIGUSR2)
    wait_until(lambda: page.agent_pid != agent, "the agent was replaced")
    wait_until(lambda: len(bench.agent_log()) == 3, "its successor runs")
    os.kill(guard, signal.SIGTERM)
    assert bench.guard is not None
    assert bench.guard.wait(20) == 0
    assert not Path(f"/proc/{guard}").exists()


def test_refused_configuration_is_the_exit_status_of_the_container(bench: Bench) -> None:
    assert launch(bench, "exit", "78").wait(20) == 78


def test_server_is_fenced_and_the_guard_itself_is_spared(bench: Bench) -> None:
    _, guard = run(bench, "beat")
    start(bench, "sleep 1000 & setsid sleep 1000 & wait")
    wait_until(lambda: len(descendants(guard)) == 5, "agent, scribe and the whole tree run")
    assert bench.kill() >= 3
    assert len(living(descendants(guard))) == 2
    assert bench.ask("ping") == ["pong", "1"]
