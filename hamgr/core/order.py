"""The election order: one total order over ballots, so that every member names the same winner.

(timeline, received LSN, failover_priority, name): more WAL wins, then the operator's preference, then the name that
sorts first, so that equal members do not depend on who looked first.
"""

from __future__ import annotations

from collections.abc import Iterable

from hamgr.core.cluster import Ballot


def rank(ballot: Ballot) -> tuple[int, int, int, str]:
    """Sorts the winner first."""
    return (-ballot.timeline, -ballot.lsn, -ballot.priority, ballot.name)


def is_ahead_of(one: Ballot, other: Ballot) -> bool:
    """True when `one` beats `other`. Irreflexive, and total for ballots of different names."""
    return rank(one) < rank(other)


def has_no_more_wal(one: Ballot, other: Ballot) -> bool:
    """True when everything that `one` has is in `other`, as far as positions tell."""
    return (one.timeline, one.lsn) <= (other.timeline, other.lsn)


def best_first(ballots: Iterable[Ballot]) -> tuple[Ballot, ...]:
    """The ballots, winner first."""
    return tuple(sorted(ballots, key=rank))
