"""Children between their fork and the outcome of their exec, which a pipe tells: see `hamgr/guard/spawn.py`."""

from __future__ import annotations

import os
from _collections_abc import Callable

from hamgr.guard.events import Events

_NOBODY_ANY_MORE = -1


class Births:
    """Who has been forked and does not run its program yet, and which client asked for it (None: the guard)."""

    __slots__ = ("_events", "_on_outcome", "_pending")

    def __init__(self, events: Events, on_outcome: Callable[[int, str, int | None], None]) -> None:
        """`on_outcome` hears of each: pid, why the program does not run (empty: it does), who asked."""
        self._events = events
        self._on_outcome = on_outcome
        self._pending: dict[int, tuple[int, int | None]] = {}

    def expect(self, pid: int, reader: int, asked_by: int | None) -> None:
        """The child `pid` tells by that pipe."""
        self._pending[pid] = (reader, asked_by)
        self._events.watch(reader, lambda _: self.settle(pid))

    def settle(self, pid: int) -> None:
        """The pipe spoke, or the child died: pass on what came of it."""
        if pid not in self._pending:
            return
        reader, asked_by = self._pending[pid]
        try:
            complaint = os.read(reader, 4096).decode(errors="replace")
        except BlockingIOError:
            return
        del self._pending[pid]
        self._events.unwatch(reader)
        os.close(reader)
        self._on_outcome(pid, complaint, asked_by)

    def forget_client(self, fd: int) -> None:
        """Who asked is gone; its descriptor may soon be another's."""
        for pid, (reader, asked_by) in self._pending.items():
            if asked_by == fd:
                self._pending[pid] = (reader, _NOBODY_ANY_MORE)

    @property
    def are_pending(self) -> bool:
        """Whether somebody waits for an outcome."""
        return bool(self._pending)
