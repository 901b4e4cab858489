"""The fence: stop the postmaster from forking, kill the whole tree, look again until none is left.

Where the server has a control group of its own, that is killed as one first.

One `sweep` per turn of the guard's loop, so that heartbeat, reaping and commands go on while processes die.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself costs 0.7 MiB of enumerations
import os

from hamgr.guard.cgroup import ServerGroup
from hamgr.guard.layout import SharedPage, boottime_ns
from hamgr.guard.processes import (
    NOBODY,
    Identity,
    kill,
    read_process,
    send_signal,
    server_tree,
    working_directory,
)
from hamgr.guard.words import ERROR, say

_EMPTY_SWEEPS_NEEDED = 2  # a child forked while the first look went by is seen by the second
_HASTY_SWEEPS = 500


class Fence:
    """What a fence needs to know and how far it has come."""

    __slots__ = (
        "_arming",
        "_data_dir",
        "_empty_sweeps",
        "_group",
        "_killed",
        "_page",
        "_sweeps",
        "active",
        "servers",
        "spared",
    )

    def __init__(self, page: SharedPage, data_dir: str, group: ServerGroup | None) -> None:
        self._page = page
        self._group = group
        self._data_dir = data_dir
        self.servers: dict[int, Identity] = {}
        """Children of the guard that were started as servers, also those that have not reached exec."""
        self.spared: set[int] = {os.getpid(), 1}
        self.active = False
        self._arming = 0
        self._killed: set[int] = set()
        self._empty_sweeps = 0
        self._sweeps = 0

    def note_server(self, pid: int) -> None:
        """That child of the guard is about to become a server; also a successor of the guard knows it."""
        child = read_process(pid)
        self.servers[pid] = child.identity if child else (pid, 0)
        self._page.newborn_start_ticks = self.servers[pid][1]
        self._page.newborn_pid = pid

    def roots(self) -> list[Identity]:
        """Postmasters known: those on the page, of which a dead guard may have started one, and those of this guard."""
        told = (self._page.postmaster_pid, self._page.postmaster_start_ticks)
        newborn = (self._page.newborn_pid, self._page.newborn_start_ticks)
        return [root for root in {told, newborn, *self.servers.values()} if root != NOBODY]

    def _directories(self) -> set[str]:
        # A directory that became a symlink, or was moved, after the guard started.
        seen = {self._data_dir}
        for pid, ticks in self.roots():
            process = read_process(pid)
            directory = working_directory(pid) if process and process.start_ticks == ticks else None
            if directory and (directory != "/" or self._data_dir == "/"):
                seen.add(directory)
        return seen

    def server_lives(self) -> bool:
        """Whether any process of the server is left."""
        return bool(server_tree(self.roots(), self._directories(), self.spared))

    def rehearse(self) -> None:
        """Write to the memory that a fence will: a new scribe shares it, and it is copied now, not at the deadline."""
        self.server_lives()

    def begin(self) -> None:
        """Stop the postmasters from forking. From here on the fence runs to its end, whatever is renewed."""
        if self.active:
            return
        self.active = True
        self._arming = self._page.arming
        self._page.fence_began_ns = boottime_ns()
        self._killed = set()
        self._empty_sweeps = self._sweeps = 0
        for root in self.roots():
            if root[0] not in self.spared:
                send_signal(root, signal.SIGSTOP)

    def sweep(self) -> bool:
        """Kill what is there. True when nothing is left, for the second time in a row; then it is on the page."""
        if self._group is not None:
            self._killed.update(self._group.kill())
        living = server_tree(self.roots(), self._directories(), self.spared)
        for process in living:
            if kill(process):
                self._killed.add(process.pid)
        self._sweeps += 1
        if living and self._sweeps == _HASTY_SWEEPS:
            names = " ".join(str(process.pid) for process in living[:20])
            say(f"still alive after SIGKILL, trying on: {names}", ERROR)
        self._empty_sweeps = 0 if living else self._empty_sweeps + 1
        if self._empty_sweeps < _EMPTY_SWEEPS_NEEDED:
            return False
        self._page.fenced_processes = len(self._killed)
        self._page.fenced_at_ns = boottime_ns()
        if self._arming % 2 == 1:
            self._page.fenced_arming = self._arming
        self.active = False
        return True

    @property
    def killed_count(self) -> int:
        """How many processes the fence under way, or the last one, has killed."""
        return len(self._killed)

    @property
    def pause_ms(self) -> int:
        """How long to wait before the next sweep: the CPU belongs to the dying, the more the longer it lasts."""
        if self._empty_sweeps:
            return 0
        return 1 if self._sweeps < _HASTY_SWEEPS else 50
