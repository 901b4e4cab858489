"""How long things take in the world: ranges in seconds, from which each instance is drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, (shortest, longest). The defaults are near what was measured on one machine (DESIGN.md 2)."""

    hop: Range = (0.0002, 0.003)
    """One way between two hosts, a flush of the receiver included."""
    to_etcd: Range = (0.0003, 0.003)
    from_etcd: Range = (0.0002, 0.002)
    watch: Range = (0.0005, 0.01)
    notice: Range = (0.001, 0.01)
    """From a process's death to its pidfd's reader."""
    kill: Range = (0.002, 0.03)
    turn: Range = (0.0, 0.002)
    """How late the guard runs: it is locked in memory and has a raised priority."""
    thaw: Range = (0.005, 0.05)
    """After the thaw of a host: how late everybody else runs."""
    respawn: Range = (0.1, 0.5)
    """From the death of an agent or a guard to its successor's first look."""
    start: Range = (0.05, 0.3)
    recovery: Range = (0.2, 1.5)
    """On top of the start of a server that did not stop cleanly."""
    stop: Range = (0.02, 0.2)
    promote: Range = (0.02, 0.15)
    sql: Range = (0.001, 0.02)
    probe_s: float = 2.0
    """A look at a server that gives no answer is given up after that."""
    checkpoint: Range = (0.01, 0.4)
    rewind: Range = (0.1, 0.8)
    clone: Range = (0.2, 1.5)
    connect: Range = (0.02, 0.3)
    """Between a replica's tries to reach its upstream."""
    silence: Range = (1.0, 5.0)
    """Until a connection that brings nothing any more is given up."""
    orphan: Range = (0.5, 20.0)
    """How long a busy backend goes on after the death of its postmaster."""
    expiry_step_s: float = 0.5
    """etcd looks for expired leases so often."""
    cuts_refuse: bool = False
    """What cannot be reached refuses at once; else it is silent."""

    def draw(self, dice: random.Random, span: Range) -> float:
        """One duration of that range; fixed ranges use up no randomness."""
        low, high = span
        return low if low == high else low + (high - low) * dice.random()


AT_ONCE: Range = (0.0, 0.0)
BRIEFLY: Range = (0.005, 0.005)

STILL = Pace(
    hop=AT_ONCE,
    to_etcd=BRIEFLY,
    from_etcd=AT_ONCE,
    watch=AT_ONCE,
    notice=AT_ONCE,
    kill=AT_ONCE,
    turn=AT_ONCE,
    thaw=AT_ONCE,
    respawn=BRIEFLY,
    start=BRIEFLY,
    recovery=AT_ONCE,
    stop=BRIEFLY,
    promote=BRIEFLY,
    sql=BRIEFLY,
    probe_s=0.0,
    checkpoint=BRIEFLY,
    rewind=BRIEFLY,
    clone=BRIEFLY,
    connect=BRIEFLY,
    silence=AT_ONCE,
    orphan=AT_ONCE,
    expiry_step_s=0.0,
    cuts_refuse=True,
)
"""For stories: nothing is left to chance, and everything takes next to no time."""
