"""A process in the world: it lives, it may be frozen, and what it meant to do dies with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hamgr.sim.clock import Event


class Timekeeper(Protocol):
    """What a process needs of the world."""

    @property
    def now(self) -> float: ...

    def at(self, when: float, do: Event) -> None: ...


class Process:
    """Events of a process wait while it is frozen, and are forgotten once it has ended."""

    def __init__(self, world: Timekeeper) -> None:
        self._clockwork = world
        self._parked: list[Event] = []
        self._freezers: list[str] = []
        self.generation = 0
        self.is_running = False
        self.frozen_at: float | None = None

    @property
    def is_frozen(self) -> bool:
        return self.frozen_at is not None

    @property
    def is_awake(self) -> bool:
        """It runs, and is not frozen."""
        return self.is_running and self.frozen_at is None

    def launch(self) -> None:
        """A new process of that kind runs."""
        self.end()
        self.is_running = True

    def end(self) -> None:
        """The process is gone, with everything that it meant to do."""
        self.generation += 1
        self.is_running = False
        self._parked = []
        # A host that is suspended as a whole stays so for whatever is started in it next.
        self._freezers = [each for each in self._freezers if each == "host"]
        self.frozen_at = self.frozen_at if self._freezers else None

    def freeze(self, by: str) -> None:
        """SIGSTOP, or the suspend of the whole host: it does nothing until everybody who froze it thaws it."""
        if by not in self._freezers:
            self._freezers.append(by)
        if self.frozen_at is None:
            self.frozen_at = self._clockwork.now

    def thaw(self, by: str, after_s: Callable[[], float]) -> None:
        """What waited is done in its old order, each thing so late."""
        if by in self._freezers:
            self._freezers.remove(by)
        if self._freezers or self.frozen_at is None:
            return
        self.frozen_at = None
        parked, self._parked = self._parked, []
        moment = self._clockwork.now
        for do in parked:
            moment = max(moment, self._clockwork.now + after_s())
            self.at(moment, do)

    def at(self, when: float, do: Event) -> None:
        """Have this process do that at `when`, if it still lives then."""
        generation = self.generation

        def due() -> None:
            if generation == self.generation:
                if self.frozen_at is None:
                    do()
                else:
                    self._parked.append(do)

        self._clockwork.at(when, due)
