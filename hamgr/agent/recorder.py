"""The flight recorder's files: two segments in rotation beside the data directory, written by a thread of its own.

Whoever posts an event never waits: what a disk that hangs does not take is dropped and counted. No fsync: a recording
is worth less than the disk's time, and what a killed agent has written is in the kernel's hands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from hamgr.agent.backlog import Backlog
from hamgr.agent.journal import LOGGER
from hamgr.core.recording import SUFFIXES, Event, Kind, event_as_json

QUEUE_EVENTS = 2000
"""Some seconds of the busiest failover, and at most some hundred KiB."""
CLOSE_S = 0.2
"""An agent that ends waits so long for the disk: its successor is to begin soon."""
MODE = 0o640


class Recorder:
    """Owner of the files: at most `size_bytes` in both together; 0: nothing is recorded."""

    def __init__(self, data_dir: Path, size_bytes: int) -> None:
        older, present = (data_dir.with_name(data_dir.name + suffix) for suffix in SUFFIXES)
        self._is_on = size_bytes > 0
        self._segments = Segments(older, present, size_bytes // 2)
        self._backlog = Backlog("recorder", QUEUE_EVENTS, self._written, _loss)
        self._is_failing = False

    def start(self) -> None:
        """From now on what is posted gets into the files; until then it waits."""
        if self._is_on:
            self._backlog.start()

    def post(self, event: Event) -> None:
        """The event will be written, or counted as dropped. Returns at once. To be called from one thread only."""
        if self._is_on:
            self._backlog.post(event)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """What was posted is in the files, unless the disk hangs for longer than that."""
        self._backlog.flush(timeout_s)

    def _written(self, events: list[Event]) -> bool:
        try:
            self._segments.append([json.dumps(event_as_json(each)) for each in events])
        except OSError as error:
            if not self._is_failing:
                LOGGER.warning("the flight recorder cannot write, events are dropped: %s", error)
            self._is_failing = True
            return False
        self._is_failing = False
        return True


def _loss(count: int, last: Event) -> Event:
    return Event(last.at, last.wall, Kind.DROPPED, "", {"count": count})


class Segments:
    """Two files, each of at most `limit_bytes`: the older one goes when the present one is full. Blocking.

    The file is opened for each write: it may be moved, removed or full at any time, and writes are rare.
    """

    def __init__(
        self, older: Path, present: Path, limit_bytes: int, write: Callable[[int, bytes], int] = os.write
    ) -> None:
        self._older = older
        self._present = present
        self._limit = limit_bytes
        self._write = write

    def append(self, lines: list[str]) -> None:
        """These lines end the present file. Raises OSError; some of them may be written then, the last one in part."""
        content = "".join(f"{line}\n" for line in lines).encode()
        self._present.parent.mkdir(parents=True, exist_ok=True)
        if self._is_full(len(content)):
            os.replace(self._present, self._older)
        descriptor = self._open()
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # A crash, or a full disk, cut the last line short: it must not take this one with it.
                content = b"\n" + content
            while content:
                content = content[self._write(descriptor, content) :]
        finally:
            os.close(descriptor)

    def _is_full(self, more_bytes: int) -> bool:
        """So many bytes, and a line break before them, are too many for the present file."""
        try:
            size = self._present.stat().st_size
        except FileNotFoundError:
            return False
        return size > 0 and size + more_bytes + 1 > self._limit

    def _open(self) -> int:
        return os.open(self._present, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
