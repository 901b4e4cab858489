"""Things to be written, and the thread that writes them: who posts one never waits for a disk or a reader.

What does not fit is dropped and counted, and the count is written before whatever comes next.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """At most `room` things that wait for `write`, which may block and says whether they are written."""

    def __init__(self, name: str, room: int, write: Callable[[list[T]], bool], loss: Callable[[int, T], T]) -> None:
        """`loss`: what is written in place of so many that are lost, the last of which is given. From any thread."""
        self._write = write
        self._loss = loss
        self._queue: queue.Queue[T] = queue.Queue(room)
        self._dropped: tuple[int, T] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """From now on what is posted gets written; until then it waits."""
        self._thread.start()

    def post(self, thing: T) -> None:
        """It will be written, or is counted as lost. Returns at once. To be called by one thread at a time."""
        if not self._has_told_loss() or not self._put(thing):
            self._dropped = (self._dropped[0] + 1 if self._dropped else 1, thing)

    def flush(self, timeout_s: float) -> None:
        """What was posted is written, unless that takes longer. As `post`, by one thread at a time."""
        if self._thread.is_alive():
            end = time.monotonic() + timeout_s
            self._wait_until_written(end)
            if self._has_told_loss():
                self._wait_until_written(end)

    def _wait_until_written(self, end: float) -> None:
        everything = self._queue.all_tasks_done
        with everything:
            everything.wait_for(lambda: not self._queue.unfinished_tasks, max(0.0, end - time.monotonic()))

    def _has_told_loss(self) -> bool:
        if self._dropped and self._put(self._loss(*self._dropped)):
            self._dropped = None
        return self._dropped is None

    def _put(self, thing: T) -> bool:
        try:
            self._queue.put_nowait(thing)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        unwritten: tuple[int, T] | None = None
        while True:
            thing = self._queue.get()
            if self._write([self._loss(*unwritten), thing] if unwritten else [thing]):
                unwritten = None
            else:
                unwritten = (unwritten[0] + 1 if unwritten else 1, thing)
            self._queue.task_done()
