"""The postmaster as a process: finding it, waiting for it, stopping it. Its end is an event (pidfd), not a poll."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hamgr.core.server import ServerIdentity
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerBroken, ServerError, ServerUnavailable
from hamgr.postgres.parent import Parent

STATUS_POLL_S = 0.005
"""postmaster.pid can only be polled; a start as a standby takes 120 ms, so this costs at most 4 %."""
FAST_SHARE = 0.6
"""Of a stop budget: for the fast stop, before the immediate one gets most of the rest."""
KILL_SHARE = 0.9


class Ending(Enum):
    """How a stop ended."""

    NOT_RUNNING = "not running"
    CLEAN = "clean"
    IMMEDIATE = "immediate"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class PidFile:
    """postmaster.pid as its owner wrote it; status is '', starting, stopping, ready or standby."""

    pid: int
    data_dir: str
    status: str


def read_pid_file(data_dir: Path) -> PidFile | None:
    """The file, or None if there is none or it is no postmaster's (garbage, half written). Blocking.

    A single-user server, which pg_rewind runs to recover a crashed one, writes its pid as a negative number: it takes
    no connection, so it is no server that could acknowledge anything. Source: miscinit.c, CreateLockFile.
    """
    try:
        lines = (data_dir / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return None
    if len(lines) < 2 or not lines[0].strip().isdigit():
        return None
    status = lines[7].strip() if len(lines) > 7 else ""
    return PidFile(int(lines[0]), lines[1].strip(), status)


def start_ticks(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None if it is gone (a zombie is gone)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(identity: ServerIdentity) -> bool:
    """True while that very process runs. Does not touch the data directory."""
    return start_ticks(identity.pid) == identity.start_ticks


def find_running(data_dir: Path) -> ServerIdentity | None:
    """The postmaster of this data directory, or None. Blocking.

    The pid file alone proves nothing: the pid may have been reused. The process must be a postgres that works
    in this directory (readlink of its cwd does not touch the disk).
    """
    named = read_pid_file(data_dir)
    if named is None or named.pid <= 1:
        return None
    ticks = start_ticks(named.pid)
    if ticks is None or not works_in(named.pid, data_dir):
        return None
    return ServerIdentity(named.pid, ticks)


def reused_pid(data_dir: Path) -> int | None:
    """The pid that a dead server has left in postmaster.pid, where another process has it by now. Blocking.

    A server does not start then, if that process is of its own user: it takes it for its predecessor. Common in a
    container that was started again, in which the same few pids are given out.
    """
    try:
        first = (data_dir / "postmaster.pid").read_text(errors="replace").partition("\n")[0].strip()
    except OSError:
        return None
    digits = first.removeprefix("-")
    pid = int(digits) if digits.isdigit() else 0
    return pid if pid and start_ticks(pid) is not None and not works_in(pid, data_dir) else None


def told_of_reused_pid(pid: int | None) -> dict[str, str]:
    """Environment by which a server knows that the process of that pid is no server, and still makes its other checks.

    Source: miscinit.c, CreateLockFile: own pid, parent and PG_GRANDPARENT_PID are never a predecessor's.
    """
    return {} if pid is None else {"PG_GRANDPARENT_PID": str(pid)}


def works_in(pid: int, data_dir: Path) -> bool:
    """True if that process is a postgres whose working directory is the data directory."""
    try:
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
        directory = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False
    return os.path.basename(program) in ("postgres", "postmaster") and directory == os.path.realpath(data_dir)


def send(identity: ServerIdentity, number: signal.Signals) -> bool:
    """That very process got the signal; False if it is gone."""
    with contextlib.suppress(ProcessLookupError, OSError):
        descriptor = os.pidfd_open(identity.pid)
        try:
            if is_alive(identity):
                signal.pidfd_send_signal(descriptor, number)
                return True
        finally:
            os.close(descriptor)
    return False


async def wait_until_exit(identity: ServerIdentity) -> None:
    """The process has ended when this returns (it may not be reaped yet); its children may still live."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        if not is_alive(identity):
            return
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def wait_until_accepting(
    disk: Disk,
    data_dir: Path,
    identity: ServerIdentity,
    timeout_s: float,
    progress: Callable[[str], None] | None = None,
) -> str:
    """The server accepts connections: returns 'ready' or 'standby'.

    `progress` is told each change of status. Raises ServerBroken if the process ends first, ServerUnavailable
    (and the server goes on starting) if it takes longer.
    """
    ended = asyncio.ensure_future(wait_until_exit(identity))
    last, deadline = "", time.monotonic() + timeout_s
    try:
        while not ended.done():
            seen = await disk.run(lambda: read_pid_file(data_dir), "read postmaster.pid")
            status = seen.status if seen is not None and seen.pid == identity.pid else ""
            if status != last and progress is not None:
                progress(status)
            last = status
            if status in ("ready", "standby"):
                return status
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"the server is still '{status or 'starting'}' after {timeout_s:g} s")
            await asyncio.wait({ended}, timeout=STATUS_POLL_S)
    finally:
        ended.cancel()
    raise ServerBroken("the server ended while starting", hint="its log tells why")


async def stop(identity: ServerIdentity, parent: Parent, disk: Disk, data_dir: Path, budget_s: float) -> Ending:
    """No process of the server is left when this returns: fast stop, then immediate, then kill of the tree."""
    started = time.monotonic()
    if not is_alive(identity):
        await parent.kill_tree()
        return Ending.NOT_RUNNING
    for number, share, ending in (
        (signal.SIGINT, FAST_SHARE, Ending.CLEAN),
        (signal.SIGQUIT, KILL_SHARE, Ending.IMMEDIATE),
    ):
        send(identity, number)
        left = started + budget_s * share - time.monotonic()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait_until_exit(identity), max(left, 0.0))
            if await _went_last(disk, data_dir):
                return ending
            break
    await parent.kill_tree()
    return Ending.KILLED


async def _went_last(disk: Disk, data_dir: Path) -> bool:
    """A postmaster that is through with its stop removes its pid file, once no other process of it is left. One that is
    killed meanwhile does not, and its backends acknowledge on.
    """
    try:
        return not await disk.run((data_dir / "postmaster.pid").exists, "look for postmaster.pid")
    except ServerError:
        return False
