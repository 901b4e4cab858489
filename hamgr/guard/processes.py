"""Processes as /proc shows them, named by pid **and** start time, so that a reused pid is never mistaken.

Source: proc(5). Nothing here touches the data directory: a hung disk cannot block it.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself costs 0.7 MiB of enumerations
import os

Identity = tuple[int, int]
"""pid, start time in clock ticks since boot (field 22 of /proc/PID/stat)."""

NOBODY: Identity = (0, 0)
_PF_EXITING = 0x4  # include/linux/sched.h: past the point where user code can run
_SERVER_PROGRAMS = ("postgres", "postmaster")


class Process:
    """One line of /proc/PID/stat."""

    __slots__ = ("flags", "group", "parent", "pid", "session", "start_ticks", "state")

    def __init__(self, pid: int, line: bytes) -> None:
        # The name, in parentheses, may itself hold blanks and parentheses.
        fields = line[line.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.flags = int(fields[6])
        self.start_ticks = int(fields[19])

    @property
    def identity(self) -> Identity:
        return self.pid, self.start_ticks


def read_process(pid: int) -> Process | None:
    """The process as it is now, None when there is none."""
    try:
        file_no = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return Process(pid, os.read(file_no, 4096))
    except (OSError, ValueError, IndexError):
        return None
    finally:
        os.close(file_no)


def is_gone(process: Process) -> bool:
    """Whether it runs no more user code, now and ever.

    Dead (also unreaped: PID 1 of some machines reaps seconds late), in its exit, or stuck in the kernel with
    SIGKILL pending. The last two can last as long as a disk hangs; waiting for them would stop the fence.
    """
    if process.state in (b"Z", b"X", b"x") or process.flags & _PF_EXITING:
        return True
    return process.state == b"D" and _has_kill_pending(process.pid)


def _has_kill_pending(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            lines = file.read(8192).split(b"\n")
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith((b"SigPnd:", b"ShdPnd:"))]
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in masks)


def lives(identity: Identity) -> bool:
    """Whether just this process exists and can still run user code."""
    process = read_process(identity[0]) if identity[0] else None
    return process is not None and process.start_ticks == identity[1] and not is_gone(process)


def open_pidfd(identity: Identity) -> int | None:
    """A pidfd of just this process (caller closes), None when it is gone or the pid is another's by now."""
    if identity[0] <= 0:
        return None
    try:
        pidfd = os.pidfd_open(identity[0])
    except OSError:
        return None
    # Checked after opening: from here on the descriptor names this process whatever becomes of the pid.
    process = read_process(identity[0])
    if process is None or process.start_ticks != identity[1]:
        os.close(pidfd)
        return None
    return pidfd


def send_signal(identity: Identity, signum: int) -> bool:
    """Signal just this process; False when it is gone or may not be signalled."""
    pidfd = open_pidfd(identity)
    try:
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, signum)
        elif lives(identity):
            # No descriptor left, or a sandbox that knows no pidfd: rather a race of microseconds than no fence.
            os.kill(identity[0], signum)
        else:
            return False
    except OSError:
        return False
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def kill(process: Process) -> bool:
    """SIGKILL to the process and, where it leads a process group, to the group.

    The group reaches what it forks between the look at /proc and the kill (an archiver's shell, for one): a
    fork with a signal pending does not happen. False when it may not be signalled or is gone.
    """
    if process.group == process.pid and process.pid > 1 and lives(process.identity):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            return False
        return True
    return send_signal(process.identity, signal.SIGKILL)


def list_processes() -> dict[int, Process]:
    """Every process that /proc shows, by pid."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = read_process(int(name))
            if process is not None:
                found[process.pid] = process
    return found


def session_members(session: int) -> list[Process]:
    """Living members of a session, its leader left out."""
    return [p for p in list_processes().values() if p.session == session and p.pid != session and not is_gone(p)]


def working_directory(pid: int) -> str | None:
    """Where it works; readlink does not touch the disk. None when it is gone or another user's."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def _runs_server_program(pid: int) -> bool:
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    # An upgrade of the package leaves the running program "(deleted)".
    return os.path.basename(program).removesuffix(" (deleted)") in _SERVER_PROGRAMS


def server_tree(roots: list[Identity], directories: set[str], spared: set[int]) -> list[Process]:
    """Living processes of the server: all below `roots`, and every postgres that works in `directories`.

    By parent alone it would not do: backends outlive a dead postmaster, and have sessions of their own.
    `spared` (the guard, the agent) are never part of it, nor is what hangs below them only.
    """
    everyone = list_processes()
    children: dict[int, list[int]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process.pid)
    waiting = [pid for pid, ticks in roots if pid in everyone and everyone[pid].start_ticks == ticks]
    for pid in everyone:
        if _runs_server_program(pid) and working_directory(pid) in directories:
            waiting.append(pid)
    tree: dict[int, Process] = {}
    while waiting:
        pid = waiting.pop()
        if pid not in tree and pid not in spared:
            tree[pid] = everyone[pid]
            waiting.extend(children.get(pid, ()))
    return [process for process in tree.values() if not is_gone(process)]
