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
    """The child that writes, once `keep` has started one; until then lines are written by whoever says them.

    There is one pipe for as long as the guard lives, so that a scribe finds what an earlier one has not read.
    """

    __slots__ = ("_due_ns", "_lost", "_reader", "_to_journal", "_writer", "pid")

    def __init__(self) -> None:
        self.pid = 0
        self._reader = -1
        self._writer: int | None = None
        self._to_journal: bool | None = None
        self._due_ns = 0
        self._lost = 0

    def keep(self, *, may_wait: bool) -> bool:
        """There is one, unless it cannot be forked or the last one has only just been started. Whether it is new.

        Where it cannot be forked the guard writes what is unread itself, once a second, if it `may_wait`: nobody is due
        to be killed, and a guard that stands still does not answer the agent, which then arms nothing.
        """
        now = boottime_ns()
        if self.pid or now < self._due_ns:
            return False
        self._due_ns = now + _RETRY_NS
        try:
            if self._writer is None:
                self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._writer, False)
            self._fork()
        except OSError:
            if may_wait:
                self._write_unread()
            return False
        return True

    def _fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                _write_on(self._reader)
            self.pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def take(self, text: str, priority: int) -> None:
        """The line will be on stderr, or is counted as lost."""
        if self._has_told_loss() and self._put(text, priority):
            return
        self._lost += 1

    def _has_told_loss(self) -> bool:
        if self._lost and self._put(f"{self._lost} lines were lost: nobody read them", WARNING):
            self._lost = 0
        return not self._lost

    def _put(self, text: str, priority: int) -> bool:
        if self._to_journal is None:
            self._to_journal = logs_to_journal()
        mark = f"<{priority}>" if self._to_journal else ""
        line = f"{mark}hamgr-guard: {text}".encode(errors="replace")[: _LONGEST_LINE - 1] + b"\n"
        try:
            if self._writer is not None:
                os.write(self._writer, line)
            elif _is_ready(2, select.POLLOUT):
                os.write(2, line)
            else:
                return False
        except OSError:
            return False
        return True

    def _write_unread(self) -> None:
        try:
            while self._writer is not None and _is_ready(self._reader, select.POLLIN) and _is_ready(2, select.POLLOUT):
                os.write(2, os.read(self._reader, _LONGEST_LINE))
        except OSError:
            return

    def end(self, *, may_wait: bool) -> None:
        """What was said is written, unless that takes long: whoever is a container's first process takes it along.

        `may_wait`: as in `keep`.
        """
        self._has_told_loss()
        if not self.pid:
            if may_wait:
                self._write_unread()
            return
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return
        ending = select.poll()
        ending.register(pidfd, select.POLLIN)
        ending.poll(_LAST_WORDS_MS)
        os.close(pidfd)


def _is_ready(fd: int, event: int) -> bool:
    asked = select.poll()
    asked.register(fd, event)
    return bool(asked.poll(0))


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
        # Not more at once: it is lost if this one is killed.
        while lines := os.read(0, _LONGEST_LINE):
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
