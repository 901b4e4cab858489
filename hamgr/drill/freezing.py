"""Processes that stand still: SIGSTOP, and SIGCONT to the very same ones later."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from hamgr.drill.errors import DrillError
from hamgr.drill.subreaper import descendants


def freeze(pids: Iterable[int]) -> Callable[[], None]:
    """SIGSTOP each, in the order given. What is returned thaws those that still live.

    By pidfd: while they stood still they may have been killed and their pids given to others.
    """
    pidfds: list[int] = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(pidfds[-1], signal.SIGSTOP)

    def thaw() -> None:
        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            os.close(pidfd)
        pidfds.clear()

    return thaw


def freeze_tree(root: int) -> Callable[[], None]:
    """SIGSTOP a process and all its descendants; the parent first, so that it starts no others meanwhile."""
    thaw_root = freeze([root])
    thaw_rest = freeze(descendants(root))

    def thaw() -> None:
        thaw_rest()
        thaw_root()

    return thaw


def title_of(pid: int) -> str:
    """What a process calls itself; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def state_of(pid: int) -> str:
    """State letter as of proc(5); empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_until_stuck(root: int, timeout_s: float) -> None:
    """True on return: a descendant of `root` is in uninterruptible sleep, seen twice. Raises DrillError otherwise."""
    deadline = time.monotonic() + timeout_s
    seen: set[int] = set()
    while time.monotonic() < deadline:
        stuck = {pid for pid in descendants(root) if state_of(pid) == "D"}
        if stuck & seen:
            return
        seen = stuck
        time.sleep(0.05)
    raise DrillError("no process got stuck in the kernel")
