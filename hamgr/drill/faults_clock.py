"""Faults of wall clocks. What hamgr holds dear is measured on clocks that do not step."""

from __future__ import annotations

from hamgr.drill.clocks import WallClock
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import NETNS_ONLY, PRIMARY, Fault, Undo, Victims

_AHEAD_S = 3600


def _clock_ahead(victims: Victims) -> Undo:
    clock = _clock(victims)
    clock.set(_AHEAD_S)
    return lambda: clock.set(0)


def _clock_stepping(victims: Victims) -> Undo:
    clock = _clock(victims)
    clock.start_stepping()
    return clock.stop_stepping


def _clock(victims: Victims) -> WallClock:
    if victims.primary.clock is None:
        raise DrillError("this needs clocks of their own: --on netns")
    return victims.primary.clock


CLOCK_FAULTS = (
    Fault(
        "clock-ahead",
        "wall clock of the primary's agent and server jumps an hour ahead",
        _clock_ahead,
        False,
        PRIMARY,
        hold_s=1.0,
        hold_ttls=1.5,
        places=NETNS_ONLY,
        needs_clocks=True,
    ),
    Fault(
        "clock-stepping",
        "wall clock of the primary's agent and server jumps to and fro by hours",
        _clock_stepping,
        False,
        PRIMARY,
        hold_s=1.0,
        hold_ttls=1.5,
        places=NETNS_ONLY,
        needs_clocks=True,
    ),
)
