"""Things to be written, and the thread that writes them: who posts one never waits for a disk or a reader.

What does not fit is dropped and counted, and the count is written before whatever comes next.

Garbage may be collected at any moment, in any thread, and a destructor may log. So nothing here holds a lock while
Python code runs: a SimpleQueue's put may come in the midst of another one of the same thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Marker:
    """Whoever waits for `reached` knows that what was posted before it is written."""

    __slots__ = ("reached",)

    def __init__(self) -> None:
        # No Event: `set` would run Python code while it holds the lock that `wait` takes at its end, whatever the time.
        self.reached = threading.Lock()
        self.reached.acquire()


class Backlog(Generic[T]):
    """At most `room` things that wait for `write`, which may block and says whether they are written."""

    def __init__(self, name: str, room: int, write: Callable[[list[T]], bool], loss: Callable[[int, T], T]) -> None:
        """`loss`: what is written in place of so many that are lost, the last of which is given. From any thread."""
        self._write = write
        self._loss = loss
        self._room = room
        self._queue: queue.SimpleQueue[T | _Marker] = queue.SimpleQueue()
        self._lost = 0
        self._last_lost: T
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """From now on what is posted gets written; until then it waits."""
        self._thread.start()

    def post(self, thing: T) -> None:
        """It will be written, or is counted as lost. Returns at once. To be called by one thread at a time."""
        if not self._has_told_loss() or not self._put(thing):
            self._count(1, thing)

    def flush(self, timeout_s: float) -> None:
        """What was posted is written, unless that takes longer. As `post`, by one thread at a time."""
        if self._thread.is_alive() and self._is_written(timeout_s) and self._lost and self._has_told_loss():
            self._is_written(timeout_s)

    def _is_written(self, timeout_s: float) -> bool:
        marker = _Marker()
        self._queue.put(marker)
        return marker.reached.acquire(timeout=timeout_s)

    def _has_told_loss(self) -> bool:
        lost, self._lost = self._lost, 0
        if not lost or self._put(self._loss(lost, self._last_lost)):
            return True
        self._count(lost, self._last_lost)
        return False

    def _count(self, lost: int, last: T) -> None:
        self._lost += lost
        self._last_lost = last

    def _put(self, thing: T) -> bool:
        if self._queue.qsize() >= self._room:
            return False
        self._queue.put(thing)
        return True

    def _run(self) -> None:
        unwritten: tuple[int, T] | None = None
        while True:
            thing = self._queue.get()
            if isinstance(thing, _Marker):
                thing.reached.release()
                continue
            if self._write([self._loss(*unwritten), thing] if unwritten else [thing]):
                unwritten = None
            else:
                unwritten = (unwritten[0] + 1 if unwritten else 1, thing)
