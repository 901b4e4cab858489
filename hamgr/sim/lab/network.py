"""The network of the lab: as the simulator's, with slow members, lost packets, and a count of messages."""

from __future__ import annotations

import random

from hamgr.sim.network import ETCD, Network
from hamgr.sim.pace import Pace, Range

RETRANSMIT_S = 0.2
"""All that is simulated here travels by TCP: what is lost is sent again after so long, then twice as long, and is late.
Source: RFC 6298, Linux's TCP_RTO_MIN.
"""
RETRANSMITS = 8


class LabNetwork(Network):
    """Counts every message of a protocol, to members and to the store alike. WAL is not counted."""

    __slots__ = ("messages", "packet_loss", "slower_s", "wal_later_s")

    def __init__(self, dice: random.Random, pace: Pace) -> None:
        super().__init__(dice, pace)
        self.messages = 0
        self.packet_loss = 0.0
        """Share of packets that are lost; a message is one packet."""
        self.slower_s: dict[str, Range] = {}
        """On top of every message from or to that member."""
        self.wal_later_s: dict[str, Range] = {}
        """On top of the way of WAL to that member: a replica that lags."""

    def heal(self) -> None:
        """Everything is reachable and quick again; a replica that lags goes on lagging."""
        super().heal()
        self.packet_loss = 0.0
        self.slower_s.clear()

    def talk_s(self, source: str, target: str) -> float | None:
        """How long a message between two members takes; None: it does not arrive."""
        self.messages += 1
        took_s = self._late(super().hop_s(source, target), source, target)
        return self._later(took_s, self.talk_slower_s, target)

    def hop_s(self, source: str, target: str) -> float | None:
        """How long WAL takes; None: there is no way."""
        took_s = self._late(super().hop_s(source, target), source, target)
        later = self.wal_later_s.get(target)
        return took_s if took_s is None or later is None else took_s + self.pace.draw(self.dice, later)

    def to_etcd_s(self, source: str) -> float | None:
        """How long a request to the store takes; None: it does not arrive."""
        self.messages += 1
        return self._late(super().to_etcd_s(source), source, ETCD)

    def from_etcd_s(self, target: str) -> float | None:
        """How long a reply of the store takes; None: it does not arrive."""
        self.messages += 1
        return self._late(super().from_etcd_s(target), ETCD, target)

    def _late(self, took_s: float | None, source: str, target: str) -> float | None:
        """With what packets that are lost and members that are slow add to it."""
        if took_s is None:
            return None
        for number in range(RETRANSMITS):
            if not self.packet_loss or self.dice.random() >= self.packet_loss:
                break
            took_s += RETRANSMIT_S * 2**number
        for name in (source, target):
            if name in self.slower_s:
                took_s += self.pace.draw(self.dice, self.slower_s[name])
        return took_s
