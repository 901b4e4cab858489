"""What everything in the world stands on: time, chance, pace, network, etcd, and the story of it."""

from __future__ import annotations

import random

from hamgr.sim.clock import Event, Schedule
from hamgr.sim.etcd import Etcd
from hamgr.sim.mutants import Mutant
from hamgr.sim.network import Network
from hamgr.sim.pace import Pace, Range
from hamgr.sim.trace import Trace

BEGIN = 1000.0


class Violation(AssertionError):
    """The world was seen in a state that must never be."""


class Ground:
    """One per world. All randomness comes from `dice`, so that a seed is a world."""

    def __init__(self, dice: random.Random, pace: Pace, mutant: Mutant = Mutant.NONE) -> None:
        self.schedule = Schedule(BEGIN)
        self.dice = dice
        self.pace = pace
        self.mutant = mutant
        self.network = Network(dice, pace)
        self.etcd = Etcd()
        self.trace = Trace(BEGIN)

    @property
    def now(self) -> float:
        return self.schedule.now

    def at(self, when: float, do: Event) -> None:
        """Have that done at `when`, whoever lives or is frozen then."""
        self.schedule.at(when, do)

    def later(self, span: Range) -> float:
        """A moment from now, drawn from that range of seconds."""
        return self.schedule.now + self.pace.draw(self.dice, span)

    def draw(self, span: Range) -> float:
        """A duration drawn from that range of seconds."""
        return self.pace.draw(self.dice, span)

    def say(self, who: str, what: str) -> None:
        """Let the story tell it."""
        self.trace.add(self.schedule.now, who, what)
