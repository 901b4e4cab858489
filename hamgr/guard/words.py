"""What the guard says on stderr: written by a child of its own, the *scribe*, so that no word holds up a kill.

A write to stderr may block whatever poll has said of it: agent and server write there too, and may fill a pipe, a
terminal or a socket in between; a file may be on a disk that hangs. The scribe waits there, and the guard hands it
lines through a pipe that takes them at once or not at all. It is no thread: one of normal priority could be put aside
while it holds the interpreter's lock, and the guard forks.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself costs 0.7 MiB of enumerations
import os
import select

from hamgr.guard.layout import boottime_ns
from hamgr.guard.spawn import HANDLED

ERROR, WARNING, INFO = 3, 4, 6
"""Priorities of log lines. Source: syslog(3)."""

_LONGEST_LINE = 4096
"""PIPE_BUF: goes into a pipe whole or not at all. Source: pipe(7)."""
_RETRY_NS = 1_000_000_000
_LAST_WORDS_MS = 500


def logs_to_journal() -> bool:
    """Whether stderr is systemd's journal: it dates lines itself, and reads a priority, `<N>`, at their beginning.

    Source: systemd.exec(5), $JOURNAL_STREAM; sd-daemon(3).
    """
    told = os.environ.get("JOURNAL_STREAM")
    if not told:
        return False
    try:
        stderr = os.fstat(2)
    except OSError:
        return False
    return told == f"{stderr.st_dev}:{stderr.st_ino}"


class Scribe:
    """The child that writes, once `keep` has started one; until then lines are written by whoever says them."""

    __slots__ = ("_due_ns", "_to_journal", "_writer", "pid")

    def __init__(self) -> None:
        self.pid = 0
        self._writer: int | None = None
        self._to_journal: bool | None = None
        self._due_ns = 0

    def keep(self) -> None:
        """There is one, unless it cannot be forked or the last one has only just been started. Never blocks."""
        now = boottime_ns()
        if self.pid or now < self._due_ns:
            return
        self._due_ns = now + _RETRY_NS
        try:
            reader, writer = os.pipe2(os.O_CLOEXEC)
        except OSError:
            return
        os.set_blocking(writer, False)
        if self._writer is not None:
            os.close(self._writer)
        self._writer = writer
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _write_on(reader)
        except OSError:
            self.pid = 0
        finally:
            os.close(reader)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def take(self, text: str, priority: int) -> None:
        """The line will be on stderr, or nowhere."""
        if self._to_journal is None:
            self._to_journal = logs_to_journal()
        mark = f"<{priority}>" if self._to_journal else ""
        line = f"{mark}hamgr-guard: {text}\n".encode(errors="replace")[:_LONGEST_LINE]
        try:
            if self._writer is not None:
                os.write(self._writer, line)
            elif _takes_a_line(2):
                os.write(2, line)
        except OSError:
            return

    def end(self) -> None:
        """What was said is written, unless that takes long: whoever is a container's first process takes it along."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
        if self.pid:
            ending = select.poll()
            ending.register(os.pidfd_open(self.pid), select.POLLIN)
            ending.poll(_LAST_WORDS_MS)


def _takes_a_line(fd: int) -> bool:
    writable = select.poll()
    writable.register(fd, select.POLLOUT)
    return bool(writable.poll(0))


def _write_on(reader: int) -> None:
    """The scribe. It ends when its guard does, by the pipe's end and not by a signal; does not return."""
    try:
        signal.set_wakeup_fd(-1)
        for signum in HANDLED:
            signal.signal(signum, signal.SIG_IGN)
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write("hamgr-scribe")
        os.dup2(reader, 0)
        # Neither the lock of its guard nor a client's connection may outlive the guard here.
        os.closerange(3, 1024)
        while lines := os.read(0, 65536):
            _write(lines)
    finally:
        os._exit(0)


def _write(lines: bytes) -> None:
    try:
        while lines:
            lines = lines[os.write(2, lines) :]
    except OSError:
        # Nobody reads, or the disk is full: the next line may fare better.
        return


SCRIBE = Scribe()


def say(text: str, priority: int = INFO) -> None:
    """One line on stderr, or none: a reader that is gone or stuck must not stop the guard."""
    SCRIBE.take(text, priority)
