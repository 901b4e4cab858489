"""The clocks of this host: one for decisions, one for people."""

from __future__ import annotations

import time

from hamgr.core.units import Instant, WallTime


def now() -> Instant:
    """CLOCK_BOOTTIME: does not step, counts suspend, and is the clock that the guard kills by."""
    return Instant(time.clock_gettime(time.CLOCK_BOOTTIME))


def wall() -> WallTime:
    """The wall clock, for records and logs only."""
    return WallTime(time.time())
