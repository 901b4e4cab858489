"""File system calls off the event loop, each with a deadline: a hung disk ends in an error, not in a stuck loop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hamgr.postgres.errors import DiskFull, ServerBroken, ServerUnavailable

T = TypeVar("T")

WORKERS = 4
"""Enough for a probe beside an action. Once all hang, every further call times out: that is the right answer."""


class Disk:
    """A few threads for blocking calls. A call that timed out keeps its thread until the kernel lets it go."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="hamgr-disk")

    async def run(self, call: Callable[[], T], what: str, timeout_s: float | None = None) -> T:
        """The result of `call`, which must not touch the loop. `what` completes 'cannot ...' in errors.

        Raises ServerUnavailable after `timeout_s` (the call may still take effect), DiskFull when no space is
        left, ServerBroken on any other OSError.
        """
        limit = self._timeout_s if timeout_s is None else timeout_s
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, call)
        except RuntimeError as error:
            raise ServerUnavailable(f"cannot {what}: {error}") from error
        try:
            return await asyncio.wait_for(future, limit)
        except TimeoutError as error:
            raise ServerUnavailable(f"cannot {what}: no answer from the file system in {limit:g} s") from error
        except OSError as error:
            raise _translated(error, what) from error

    def close(self) -> None:
        """No further calls; threads that hang are left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _translated(error: OSError, what: str) -> ServerBroken:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"cannot {what}: {error}", hint="free space on this file system or make it larger")
    if error.errno == errno.EROFS:
        return ServerBroken(
            f"cannot {what}: {error}",
            hint="mount it writable; if systemd's unit makes it so, name the directory above in ReadWritePaths=",
        )
    return ServerBroken(f"cannot {what}: {error}")
