"""Who reaches whom, how late, and what is lost on the way."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hamgr.sim.pace import Pace, Range

ETCD = "etcd"
CLIENT = "client"


class Network:
    """Delays and cuts between hosts, etcd and the application. Cuts are one-way pairs (from, to)."""

    __slots__ = ("cuts", "dice", "etcd_slower_s", "loss", "pace", "replies_slower_s", "talk_slower_s", "unplugged")

    def __init__(self, dice: random.Random, pace: Pace) -> None:
        self.dice = dice
        self.pace = pace
        self.cuts: dict[tuple[str, str], bool] = {}
        self.unplugged: dict[str, bool] = {}
        """Hosts without a network: their own calls fail at once."""
        self.loss = 0.0
        """Share of requests to etcd, and of its replies, that do not arrive."""
        self.etcd_slower_s: Range = (0.0, 0.0)
        """On top of every way to etcd."""
        self.replies_slower_s: dict[str, Range] = {}
        """On top of the way from etcd, by host."""
        self.talk_slower_s: dict[str, Range] = {}
        """On top of the way from other hosts' agents, by host."""

    def is_cut(self, source: str, target: str) -> bool:
        """Nothing gets from there to there."""
        return (source, target) in self.cuts

    def is_unplugged(self, name: str) -> bool:
        """That host knows that it has no network."""
        return name in self.unplugged

    def connects(self, one: str, other: str) -> bool:
        """Both ways are open."""
        return (one, other) not in self.cuts and (other, one) not in self.cuts

    def cut(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """Cut the way from one to the other, and the way back."""
        self.cuts[one, other] = True
        if both_ways:
            self.cuts[other, one] = True

    def mend(self, one: str, other: str) -> None:
        """Both ways are open again."""
        self.cuts.pop((one, other), None)
        self.cuts.pop((other, one), None)

    def heal(self) -> None:
        """Everything is reachable and quick again."""
        self.cuts.clear()
        self.unplugged.clear()
        self.loss = 0.0
        self.etcd_slower_s = (0.0, 0.0)
        self.replies_slower_s.clear()
        self.talk_slower_s.clear()

    def hop_s(self, source: str, target: str) -> float | None:
        """How long a message between two hosts takes; None: it does not arrive."""
        if self.cuts and (source, target) in self.cuts:
            return None
        return self.pace.draw(self.dice, self.pace.hop)

    def talk_s(self, source: str, target: str) -> float | None:
        """How long a message between the agents of two hosts takes; None: it does not arrive."""
        return self._later(self.hop_s(source, target), self.talk_slower_s, target)

    def to_etcd_s(self, source: str) -> float | None:
        """How long a request takes to etcd; None: it does not arrive."""
        if self._is_lost(source, ETCD):
            return None
        return self.pace.draw(self.dice, self.pace.to_etcd) + self.pace.draw(self.dice, self.etcd_slower_s)

    def from_etcd_s(self, target: str) -> float | None:
        """How long a reply takes from etcd; None: it does not arrive."""
        if self._is_lost(ETCD, target):
            return None
        return self._later(self.pace.draw(self.dice, self.pace.from_etcd), self.replies_slower_s, target)

    def _later(self, took_s: float | None, slower_s: Mapping[str, Range], target: str) -> float | None:
        return took_s if took_s is None else took_s + self.pace.draw(self.dice, slower_s.get(target, (0.0, 0.0)))

    def _is_lost(self, source: str, target: str) -> bool:
        if self.cuts and (source, target) in self.cuts:
            return True
        return self.loss > 0.0 and self.dice.random() < self.loss
