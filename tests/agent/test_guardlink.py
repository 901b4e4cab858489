"""The agent's side of the guard, against a real guard process with a fake server under it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.agent import guardlink
from hamgr.agent.clock import now
from hamgr.agent.guardlink import GuardLink, nanoseconds
from hamgr.core.server import ServerIdentity
from hamgr.core.standing import GuardStanding
from hamgr.core.units import Term, after
from hamgr.guard.layout import SOCKET_NAME, WATCHDOG_ACTIVE, WATCHDOG_FAILED, SharedPage
from hamgr.postgres.errors import ServerBroken, ServerRefused, ServerUnavailable
from tests.agent.workbench import until
from tests.guard.bench import TREE, Bench, descendants, living, start_ticks

TERM = Term(3)
LEASE = 7
TREE_SIZE = 4


@pytest.fixture
def guard() -> Iterator[Bench]:
    """A guard that runs, with an agent that beats."""
    root = Path(tempfile.mkdtemp(prefix="hamgr-agent-", dir="/tmp"))
    os.chmod(root, 0o755)
    made = Bench(root)
    made.run("beat", agent_timeout_s=60)
    yield made
    made.end()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def linked(guard: Bench) -> GuardLink:
    return GuardLink(str(guard.runtime_dir), SharedPage.open(str(guard.runtime_dir)))


async def start(guard: Bench, link: GuardLink) -> tuple[ServerIdentity, list[int]]:
    """The fake server was started through the link: who it is, and its whole tree."""
    identity = await link.spawn([guard.postgres, "-c", TREE, guard.postgres])
    guard.to_end.append(identity.pid)
    await until(lambda: len(descendants(identity.pid)) == TREE_SIZE - 1, "the tree is complete")
    tree = [identity.pid, *descendants(identity.pid)]
    guard.to_end += tree
    return identity, tree


async def test_a_server_started_through_the_guard_is_the_guards_child(guard: Bench, linked: GuardLink) -> None:
    identity, _ = await start(guard, linked)
    assert identity == ServerIdentity(identity.pid, start_ticks(identity.pid))
    assert guard.guard is not None
    assert identity.pid in descendants(guard.guard.pid)


async def test_a_program_that_is_not_there_is_broken_and_in_the_guards_words(guard: Bench, linked: GuardLink) -> None:
    with pytest.raises(ServerBroken, match="No such file"):
        await linked.spawn(["/nowhere/postgres"])


async def test_a_kill_leaves_nothing_of_the_server(guard: Bench, linked: GuardLink) -> None:
    _, tree = await start(guard, linked)
    assert await linked.kill_tree() == TREE_SIZE
    assert living(tree) == []
    assert await linked.kill_tree() == 0


async def test_an_armed_server_is_killed_at_its_deadline_and_a_disarmed_one_is_not(
    guard: Bench, linked: GuardLink
) -> None:
    identity, tree = await start(guard, linked)
    await linked.arm(after(now(), 60.0), identity, TERM, LEASE)
    linked.disarm()
    assert (linked.page.term, linked.page.lease_id, linked.page.armed) == (0, LEASE, False)
    linked.page.deadline_ns = looked_at = nanoseconds(now())
    await until(lambda: linked.page.guard_heartbeat_ns > looked_at, "the guard has looked at a deadline that is over")
    beat = linked.page.guard_heartbeat_ns
    await until(lambda: linked.page.guard_heartbeat_ns > beat, "it has had a whole turn")
    assert len(living(tree)) == TREE_SIZE
    await linked.arm(after(now(), 0.5), identity, TERM, LEASE)
    assert (linked.page.term, linked.page.armed) == (TERM, True)
    await until(lambda: living(tree) == [], "the guard kills it")
    await until(lambda: linked.page.fenced_arming == linked.page.arming, "the guard says so")
    assert not linked.page.armed


async def test_a_server_that_starts_under_an_armed_guard_is_bound_once_it_is_named(
    guard: Bench, linked: GuardLink
) -> None:
    deadline = after(now(), 60.0)
    await linked.arm(deadline, None, TERM, LEASE)
    identity, tree = await start(guard, linked)
    linked.name_server(identity)
    assert linked.page.deadline_ns == nanoseconds(deadline)
    linked.page.deadline_ns = nanoseconds(now())
    await until(lambda: living(tree) == [], "the guard kills it")


async def test_the_guards_heartbeat_shows_whether_it_lives(
    guard: Bench, linked: GuardLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert linked.is_alive
    assert guard.guard is not None
    guard.guard.send_signal(signal.SIGSTOP)
    await until(lambda: not linked.is_alive, "its silence is seen")
    monkeypatch.setattr(guardlink, "REPLY_TIMEOUT_S", 0.05)
    with pytest.raises(ServerUnavailable):
        await linked.kill_tree()
    with pytest.raises(ServerUnavailable):
        await linked.arm(after(now(), 60.0), None, TERM, LEASE)
    assert linked.page.armed, "an arming that was not answered stands"
    guard.guard.send_signal(signal.SIGCONT)
    await until(lambda: linked.is_alive, "its return is seen")
    linked.disarm()


async def test_without_a_guard_nothing_is_said_to_be_done(link: GuardLink) -> None:
    for command in (link.kill_tree(), link.spawn(["postgres"]), link.arm(after(now(), 60.0), None, TERM, LEASE)):
        with pytest.raises(ServerUnavailable):
            await command


async def test_a_guard_that_hangs_up_instead_of_answering_is_unavailable(link: GuardLink, tmp_path: Path) -> None:
    """It took the command and died of it: whether it was carried out is not known, which is not a refusal."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen()
        asking = asyncio.ensure_future(link.spawn(["postgres"]))
        connection, _ = await loop.sock_accept(listener)
        with connection:
            assert await loop.sock_recv(connection, 100) == b"start\0postgres"
        with pytest.raises(ServerUnavailable, match="closed the connection"):
            await asking


@pytest.mark.parametrize("command", ["spawn", "kill", "arm"])
async def test_a_guard_that_dies_over_a_command_is_unavailable(guard: Bench, linked: GuardLink, command: str) -> None:
    assert guard.guard is not None
    guard.guard.send_signal(signal.SIGSTOP)
    asked = {
        "spawn": lambda: linked.spawn([guard.postgres]),
        "kill": linked.kill_tree,
        "arm": lambda: linked.arm(after(now(), 60.0), None, TERM, LEASE),
    }[command]
    asking = asyncio.ensure_future(asked())
    done, _ = await asyncio.wait({asking}, timeout=0.05)
    assert not done
    guard.guard.kill()
    with pytest.raises(ServerUnavailable):
        await asking


async def test_a_required_watchdog_that_is_not_active_keeps_this_member_from_leading(
    guard: Bench, tmp_path: Path
) -> None:
    device = tmp_path / "watchdog"
    link = GuardLink(str(guard.runtime_dir), guard.page, str(device))
    assert "is not there" in link.watchdog_problem()
    with pytest.raises(ServerRefused, match="is off, and it is required"):
        await link.arm(after(now(), 60.0), None, TERM, LEASE)
    assert not link.page.armed, "a standby must not be killed for a promotion that was refused"
    # Unarmed, the guard would say at its next turn that the device is off.
    link.page.arm(nanoseconds(after(now(), 60.0)), 0, 0)
    link.page.watchdog = WATCHDOG_ACTIVE
    assert link.watchdog_problem() == ""
    await link.arm(after(now(), 60.0), None, TERM, LEASE)
    link.page.watchdog = WATCHDOG_FAILED
    with pytest.raises(ServerRefused, match="is failed"):
        await link.arm(after(now(), 60.0), None, TERM, LEASE)
    assert link.page.armed, "what was armed before may be a primary"
    device.touch()
    assert link.watchdog_problem() == ""


def test_a_required_watchdog_that_may_not_be_written_is_said(
    link: GuardLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert link.watchdog_problem() == "", "none is required"
    (tmp_path / "watchdog").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not be written" in GuardLink(str(tmp_path), link.page, str(tmp_path / "watchdog")).watchdog_problem()


def test_the_guards_standing_is_what_its_page_says(guard: Bench, linked: GuardLink) -> None:
    assert linked.standing == GuardStanding(
        is_alive=True,
        pid=linked.page.guard_pid,
        is_stand_in=False,
        is_armed=False,
        memory_locked=bool(linked.page.memory_locked),
        realtime=os.sched_getscheduler(linked.page.guard_pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR,
        watchdog="off",
        agent_restarts=0,
    )
    locked = "VmLck:\t       0 kB" not in Path(f"/proc/{linked.page.guard_pid}/status").read_text()
    assert linked.standing.memory_locked == locked


def test_a_farewell_is_on_the_page_until_another_agent_comes(link: GuardLink, tmp_path: Path) -> None:
    link.bid_farewell(0)
    assert link.page.agent_farewell == 1
    assert GuardLink(str(tmp_path), link.page).page.agent_farewell == 0


def test_an_armed_deadline_moves_on_in_its_own_term_and_never_back(tmp_path: Path) -> None:
    link = GuardLink(str(tmp_path), SharedPage.open(str(tmp_path)))
    at = now()
    assert not link.extend(after(at, 9.0), TERM), "nothing is armed"
    link.page.term = TERM
    link.page.arm(nanoseconds(after(at, 2.0)), 1, 1)
    assert not link.extend(after(at, 9.0), Term(TERM + 1))
    assert link.page.deadline_ns == nanoseconds(after(at, 2.0))
    assert link.extend(after(at, 5.0), TERM)
    assert link.extend(after(at, 3.0), TERM)
    assert link.page.deadline_ns == nanoseconds(after(at, 5.0))
    link.disarm()
    assert not link.extend(after(at, 9.0), TERM)


async def test_an_arming_while_the_key_moves_goes_no_further_than_the_other_lease(
    guard: Bench, linked: GuardLink
) -> None:
    at, other = now(), LEASE + 1
    linked.limit(after(at, 20.0), other)
    await linked.arm(after(at, 30.0), None, TERM, LEASE)
    assert linked.page.deadline_ns == nanoseconds(after(at, 20.0))
    await linked.arm(after(at, 10.0), None, TERM, LEASE)
    assert linked.page.deadline_ns == nanoseconds(after(at, 10.0))
    linked.lift_limit(other)
    await linked.arm(after(at, 30.0), None, TERM, other)
    assert linked.page.deadline_ns == nanoseconds(after(at, 30.0))


@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize("renewed_first", [False, True])
def test_a_renewal_that_was_under_way_when_the_key_moved_moves_no_deadline(
    tmp_path: Path, renewed_first: bool, is_replaced: bool
) -> None:
    """The key would end with the shorter lease, and the server go by the longer one that it has left."""
    long, short = 7, 8
    link = GuardLink(str(tmp_path), SharedPage.open(str(tmp_path)))
    at = now()
    link.page.term, link.page.lease_id = TERM, long
    link.page.arm(nanoseconds(after(at, 30.0)), 1, 1)
    link.limit(after(at, 2.0), short)
    if is_replaced:
        link = GuardLink(str(tmp_path), link.page)
    assert link.extend_by_lease(after(at, 40.0), TERM, long), "the move may come to nothing"
    if renewed_first:
        assert link.extend_by_lease(after(at, 2.0), TERM, short)
    link.lift_limit(short)
    assert link.extend_by_lease(after(at, 40.0), TERM, long)
    assert (link.page.deadline_ns, link.page.lease_id) == (nanoseconds(after(at, 2.0)), short)
    assert link.extend_by_lease(after(at, 4.0), TERM, short)
    assert link.page.deadline_ns == nanoseconds(after(at, 4.0))


def test_a_promise_is_on_the_page_and_a_shorter_one_does_not_cut_it(tmp_path: Path) -> None:
    link = GuardLink(str(tmp_path), SharedPage.open(str(tmp_path)))
    at = now()
    link.note_promise(after(at, 5.0))
    link.note_promise(after(at, 2.0))
    assert SharedPage.open(str(tmp_path)).promised_until_ns == nanoseconds(after(at, 5.0))


async def test_a_service_manager_is_told_each_line_once_and_again_by_the_next_guard(
    guard: Bench, linked: GuardLink
) -> None:
    heard: list[str] = []
    path = guard.runtime_dir / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ear:
        path.unlink()
        ear.bind(str(path))
        ear.listen()
        ear.settimeout(0.2)
        linked.show("nobody would read this")
        linked.page.supervised = 1
        for line in ("one", "one", "two"):
            linked.show(line)
        linked.page.guard_start_ticks += 1
        linked.show("two")
        while len(heard) < 3:
            client, _ = ear.accept()
            with client:
                heard.append(client.recv(1000).decode())
        with pytest.raises(TimeoutError):
            ear.accept()
    assert heard == ["status\0one", "status\0two", "status\0two"]


async def test_a_guard_that_is_not_there_is_told_later(guard: Bench, linked: GuardLink) -> None:
    path = guard.runtime_dir / SOCKET_NAME
    path.unlink()
    linked.page.supervised = 1
    linked.show("one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ear:
        ear.bind(str(path))
        ear.listen()
        ear.settimeout(20)
        linked.show("one")
        client, _ = ear.accept()
        with client:
            assert client.recv(1000) == b"status\0one"
