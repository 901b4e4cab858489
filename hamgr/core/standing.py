"""What the guard of a host is able to do, as REST and metrics show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

WatchdogState = Literal["off", "active", "failed"]
WATCHDOG_STATES: tuple[WatchdogState, ...] = get_args(WatchdogState)


@dataclass(frozen=True, slots=True)
class GuardStanding:
    """The guard as it says of itself on the shared page."""

    is_alive: bool
    pid: int
    is_stand_in: bool
    """Started by the agent in place of a dead one."""
    is_armed: bool
    """It holds a deadline and kills the server when that comes. A replica has none."""
    memory_locked: bool
    realtime: bool
    """It runs before everything else; without it, and without a raised priority, a busy host may delay a fence."""
    watchdog: WatchdogState
    agent_restarts: int
    """Starts of the agent after the first one since the host booted."""
