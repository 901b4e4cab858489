"""Actions on what stands between clients and servers: poolers and load balancers. None is needed for safety."""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.lanes import Lane, Upstream
from hamgr.core.units import Instant, Term


@dataclass(frozen=True, slots=True)
class HoldPools:
    """Pause every pool: its clients wait, and once their transactions have ended it has no session on a server. One
    that cannot be held in time goes on as it was, and its clients lose their sessions in the stop that follows.
    """

    request_revision: int
    """0: because this agent is to end."""
    lane = Lane.POOLS


@dataclass(frozen=True, slots=True)
class ReleasePools:
    """Resume every pool, as soon as it leads to this server, or after a moment all the same."""

    term: Term
    verified_at: Instant
    """Of the verification that it follows."""
    lane = Lane.POOLS


@dataclass(frozen=True, slots=True)
class PushRoute:
    """Tell the load balancers which server accepts writes, before their own checks find it out."""

    term: Term
    verified_at: Instant
    """Of the verification that it follows."""
    others: tuple[str, ...]
    lane = Lane.BALANCERS


@dataclass(frozen=True, slots=True)
class PointPools:
    """The pools whose target file is on this host lead to that server."""

    target: Upstream
    lane = Lane.TARGETS
