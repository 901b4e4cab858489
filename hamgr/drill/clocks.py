"""A wall clock of its own for a member: libfaketime, preloaded into guard, agent and server, reads it from a file.

The machine's clock is never touched, and the monotonic clocks stay true.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from hamgr.drill.errors import DrillError

_STEPS_S = (3600, -3600, 7200, 0, -86_400)
_STEP_EVERY_S = 1.5
"""The library looks at its file once a second."""


def library() -> Path | None:
    """libfaketime where Debian and Ubuntu keep it; None where it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return found[0] if found else None


class WallClock:
    """One member's clock, true until it is `set`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stepping: threading.Event | None = None
        self.set(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program must be started with to live by this clock. Raises DrillError without the library."""
        preloaded = library()
        if preloaded is None:
            raise DrillError("libfaketime is not installed (Debian and Ubuntu: apt install faketime)")
        return {
            "LD_PRELOAD": str(preloaded),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }

    def set(self, ahead_s: int) -> None:
        """The clock is so far ahead of the machine's within a second."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{ahead_s:+d}s\n")
        # At once: the library would end a program that reads half a line.
        os.replace(fresh, self._path)

    def start_stepping(self) -> None:
        """The clock jumps to and fro until `stop_stepping`."""
        ending = self._stepping = threading.Event()

        def step() -> None:
            position = 0
            while not ending.is_set():
                self.set(_STEPS_S[position % len(_STEPS_S)])
                position += 1
                ending.wait(_STEP_EVERY_S)
            self.set(0)

        threading.Thread(target=step, name="clock-steps", daemon=True).start()

    def stop_stepping(self) -> None:
        """The clock is true again within a second."""
        if self._stepping is not None:
            self._stepping.set()


def remove_traces(pid: int) -> None:
    """What the library leaves in shared memory when the first program that it was loaded into is killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/dev/shm/{name}")
