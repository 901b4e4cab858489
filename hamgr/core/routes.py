"""What stands between clients and servers, as far as decisions depend on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Routes:
    """What this member's file names of it."""

    pools: bool = False
    """There are pools to be held during a hand-over."""
    targets: bool = False
    """One of them has its target in a file on this host."""
    balancers: bool = False
    """There are load balancers to be told who accepts writes."""
