"""The election order over ballots, by which every member names the same winner.

(timeline, received LSN, failover_priority, name): more WAL wins, then the operator's preference, then the name that
sorts first, so that equal members do not depend on who looked first. Of two timelines that have one number and are not
the same, the later one wins, however much WAL the other has: its leader was elected without that WAL.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hamgr.core.cluster import Ballot
from hamgr.core.units import Term, Timeline


class OnTimeline(Protocol):
    """What is said of a position on a timeline: a ballot, an offer, a status, a server."""

    @property
    def timeline(self) -> Timeline: ...

    @property
    def timeline_term(self) -> Term: ...


def have_forked(one: OnTimeline, other: OnTimeline) -> bool:
    """Their timelines have the same number and were begun in different terms. Only where both are known."""
    terms = (one.timeline_term, other.timeline_term)
    return one.timeline == other.timeline and all(terms) and terms[0] != terms[1]


def rank(ballot: Ballot) -> tuple[int, int, int, str]:
    """Sorts the winner first, among ballots of one history."""
    return (-ballot.timeline, -ballot.lsn, -ballot.priority, ballot.name)


def is_ahead_of(one: Ballot, other: Ballot) -> bool:
    """True when `one` beats `other`. Irreflexive, and of two ballots of different names one is ahead."""
    return one.timeline_term > other.timeline_term if have_forked(one, other) else rank(one) < rank(other)


def has_no_more_wal(one: Ballot, other: Ballot) -> bool:
    """True when everything that counts of what `one` has is in `other`, as far as positions tell."""
    if have_forked(one, other):
        return one.timeline_term < other.timeline_term
    return (one.timeline, one.lsn) <= (other.timeline, other.lsn)


def best_first(ballots: Iterable[Ballot]) -> tuple[Ballot, ...]:
    """The ballots, winner first."""
    return tuple(sorted(ballots, key=rank))
