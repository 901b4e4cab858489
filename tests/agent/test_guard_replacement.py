"""A guard that died or froze is replaced by the agent, against real guards with a fake server under them."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hamgr.agent import guard_replacement
from hamgr.agent.guard_replacement import LOOK_S, SILENT_LOOKS, keep_guard
from hamgr.agent.guardlink import GuardLink
from hamgr.agent.journal import LOGGER
from tests.agent.workbench import until
from tests.guard.bench import Bench, is_alive


@pytest.fixture
def guard() -> Iterator[Bench]:
    """A guard that runs, with an agent that beats."""
    root = Path(tempfile.mkdtemp(prefix="hamgr-agent-", dir="/tmp"))
    os.chmod(root, 0o755)
    made = Bench(root)
    made.run("beat", agent_timeout_s=60)
    yield made
    made.to_end.append(made.page.guard_pid)
    made.end()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def kept(guard: Bench) -> AsyncIterator[GuardLink]:
    """The agent's side, which keeps the guard."""
    link = GuardLink(str(guard.runtime_dir), guard.page)
    keeping = asyncio.create_task(keep_guard(link, guard.argv("beat", agent_timeout_s=60, is_stand_in=True)))
    yield link
    keeping.cancel()
    await asyncio.wait({keeping})


async def looks_pass(count: int) -> None:
    """So many of the agent's looks at the guard."""
    for _ in range(count):
        await asyncio.sleep(LOOK_S)


def kill(guard: Bench) -> int:
    """The guard is dead and, where it was our child, reaped; its pid."""
    pid = guard.page.guard_pid
    os.kill(pid, signal.SIGKILL)
    if guard.guard is not None and guard.guard.pid == pid:
        guard.guard.wait()
    return pid


async def test_a_dead_guard_is_replaced_and_neither_agent_nor_server_notices(guard: Bench, kept: GuardLink) -> None:
    tree = guard.start_server()
    agent = guard.page.agent_pid
    guard.arm(tree[0], in_s=1000)
    for _ in range(2):
        dead = kill(guard)
        await until(lambda dead=dead: kept.guard.pid != dead and kept.is_alive, "a stand-in guards")
        guard.to_end.append(kept.guard.pid)
    assert kept.standing.is_stand_in
    assert kept.page.agent_pid == agent
    assert guard.agent_log() == [f"started {agent}"]
    assert all(map(is_alive, tree))
    assert await kept.kill_tree() == len(tree)


async def test_an_agent_that_was_started_without_a_guard_gets_one(guard: Bench) -> None:
    kill(guard)
    guard.page.guard_pid = guard.page.guard_start_ticks = 0
    link = GuardLink(str(guard.runtime_dir), guard.page)
    keeping = asyncio.create_task(keep_guard(link, guard.argv("beat", agent_timeout_s=60, is_stand_in=True)))
    await until(lambda: link.is_alive and link.guard.pid, "a stand-in guards")
    keeping.cancel()


async def test_a_frozen_guard_is_killed_and_replaced(guard: Bench, kept: GuardLink) -> None:
    frozen = kept.guard.pid
    os.kill(frozen, signal.SIGSTOP)
    await until(lambda: kept.guard.pid != frozen, "a stand-in guards")
    assert not is_alive(frozen)


async def test_an_agent_that_did_not_run_itself_does_not_blame_the_guard(guard: Bench, kept: GuardLink) -> None:
    """As after a freeze of the whole host: the heartbeat is old, and both have only just woken."""
    first = kept.guard.pid
    await looks_pass(2)
    os.kill(first, signal.SIGSTOP)
    beat = kept.page.guard_heartbeat_ns
    time.sleep((SILENT_LOOKS + 3) * LOOK_S)  # noqa: ASYNC251 -- this is the agent's not running
    for _ in range(10):
        # The look that is due comes before the guard can beat.
        await asyncio.sleep(0)
    os.kill(first, signal.SIGCONT)
    await until(lambda: kept.page.guard_heartbeat_ns > beat, "the guard beats again")
    await looks_pass(2)
    assert kept.guard.pid == first
    assert is_alive(first)


async def test_a_service_manager_is_left_time_to_start_another(guard: Bench, kept: GuardLink) -> None:
    guard.page.supervised = 1
    kill(guard)
    restarted = guard.launch("beat", agent_timeout_s=60)
    await until(lambda: kept.guard.pid == restarted.pid, "it guards")
    await looks_pass(2)
    assert kept.guard.pid == restarted.pid
    assert not kept.standing.is_stand_in


async def test_a_service_manager_that_does_nothing_is_not_waited_for(
    guard: Bench, kept: GuardLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_replacement, "SUPERVISED_GRACE_S", 0.3)
    guard.page.supervised = 1
    dead = kill(guard)
    await until(lambda: kept.guard.pid != dead, "a stand-in guards")


async def test_a_stand_in_that_cannot_start_is_said_and_tried_again(
    guard: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard_replacement, "RETRY_S", 0.1)
    monkeypatch.setattr(LOGGER, "propagate", True)
    link = GuardLink(str(guard.runtime_dir), guard.page)
    kill(guard)
    with caplog.at_level(logging.ERROR):
        keeping = asyncio.create_task(keep_guard(link, ["/nowhere/python"]))
        await until(lambda: caplog.text.count("trying again") >= 2, "it is tried again")
        keeping.cancel()
    assert "No such file" in caplog.text


async def test_stand_in_makes_room_and_the_new_guard_is_kept_in_its_turn(
    guard: Bench, kept: GuardLink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    dead = kill(guard)
    await until(lambda: kept.guard.pid != dead and kept.is_alive, "a stand-in guards")
    started = guard.launch("beat", agent_timeout_s=60)
    await until(lambda: kept.guard.pid == started.pid, "the service manager's guards")
    await looks_pass(2)
    assert kept.guard.pid == started.pid
    assert caplog.text.count("starting a stand-in") == 1
    kill(guard)
    await until(lambda: kept.guard.pid != started.pid, "another stand-in guards")


def test_launch_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(guard_replacement, "LAUNCH_S", 0.1)
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level(logging.ERROR):
        guard_replacement._launch(["/bin/sleep", "1000"])
        guard_replacement._launch(["/bin/false"])
    assert "timed out" in caplog.text
    assert "it exited 1" in caplog.text
