"""Virtual time: one heap of events, and the clocks of hosts, each with its own origin and speed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from hamgr.core.units import Instant

Event = Callable[[], None]


class Schedule:
    """What will happen, in order of time and then of arrival. `now` moves only in `step`."""

    __slots__ = ("_heap", "_number", "now", "steps")

    def __init__(self, now: float) -> None:
        self.now = now
        self.steps = 0
        self._heap: list[tuple[float, int, Event]] = []
        self._number = 0

    def at(self, when: float, do: Event) -> None:
        """Have that done at `when`, or at once if that has passed."""
        self._number += 1
        heapq.heappush(self._heap, (when if when > self.now else self.now, self._number, do))

    @property
    def next_at(self) -> float:
        """When the next event comes; infinity if there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def step(self) -> None:
        """Go on to the next event and let it happen."""
        self.now, _, do = heapq.heappop(self._heap)
        self.steps += 1
        do()


@dataclass(frozen=True, slots=True)
class HostClock:
    """CLOCK_BOOTTIME of one host: counts from its own origin at its own speed."""

    origin_s: float = 0.0
    rate: float = 1.0

    def read(self, now: float) -> Instant:
        """What it shows at that moment of the world."""
        return Instant(self.origin_s + self.rate * now)

    def moment_of(self, instant: float) -> float:
        """When in the world it will show that instant, or did. Never before the clock itself would say so."""
        moment = (instant - self.origin_s) / self.rate
        return moment + 1e-9
