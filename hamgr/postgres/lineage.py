"""From which timelines a server's WAL descends, and whether one server's WAL is the beginning of another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hamgr.core.units import Lsn, Timeline


@dataclass(frozen=True, slots=True)
class Switch:
    """One line of a history file: the timeline was left at that position."""

    timeline: Timeline
    lsn: Lsn


History = tuple[Switch, ...]
"""The parents of a timeline, oldest first, as its history file lists them."""


@dataclass(frozen=True, slots=True)
class Position:
    """A point in the history of a cluster."""

    timeline: Timeline
    lsn: Lsn


def timeline_history(text: str) -> History:
    """Read a history file. Raises ValueError with the line if one is not of its form."""
    switches: list[Switch] = []
    for line in text.splitlines():
        bare = line.split("#")[0].strip()
        if not bare:
            continue
        words = bare.split()
        if len(words) < 2 or not words[0].isdigit():
            raise ValueError(f"not a line of a timeline history: {line!r}")
        switches.append(Switch(Timeline(int(words[0])), Lsn.parse(words[1])))
    return tuple(switches)


def start_of(timeline: Timeline, files: Mapping[Timeline, History]) -> Lsn:
    """Where that timeline began, by its history file; 0 if there is none."""
    return files[timeline][-1].lsn if files.get(timeline) else Lsn(0)


def timeline_at(lsn: Lsn, end: Position, history: Sequence[Switch]) -> Timeline:
    """On which timeline the byte at `lsn` stands, in the history that leads to `end`."""
    return next((switch.timeline for switch in history if switch.lsn > lsn), end.timeline)


def shared_end(
    here: Position, files: Mapping[Timeline, History], there: Position, history: Sequence[Switch]
) -> Position:
    """Where two histories part by their numbers, as pg_rewind finds it: what stands before that should be the same WAL.

    At 0 where they have nothing in common. Source: src/bin/pg_rewind/pg_rewind.c, findCommonAncestorTimeline.
    """
    ours = (*files.get(here.timeline, ()), Switch(here.timeline, here.lsn))
    theirs = (*history, Switch(there.timeline, there.lsn))
    shared = Position(Timeline(0), Lsn(0))
    for one, other in zip(ours, theirs, strict=False):
        if one.timeline != other.timeline:
            break
        shared = Position(one.timeline, min(one.lsn, other.lsn))
        if one.lsn != other.lsn:
            break
    return shared


def ways_on(here: Position, files: Mapping[Timeline, History]) -> tuple[Position, ...]:
    """Where WAL that follows `here` may begin, newest timeline first and `here` itself last.

    A newer timeline counts if it descends from what `here` stands on; that its history file is there does not say
    that anything was received on it.
    """
    later = []
    for timeline in sorted(files, reverse=True):
        left_at = {switch.timeline: switch.lsn for switch in files[timeline]}
        if timeline > here.timeline and here.timeline in left_at and left_at[here.timeline] >= here.lsn:
            later.append(Position(timeline, start_of(timeline, files)))
    return (*later, here)


def why_diverged(
    local: Position, files: Mapping[Timeline, History], leader: Position, history: Sequence[Switch]
) -> str:
    """Why the local end of WAL is no ancestor of the leader's position; empty if it is one.

    `files`: the history files on the local disk, by timeline; `history`: that of the leader's timeline.
    A timeline's number alone proves nothing: two servers promoted apart from each other both take the next number.
    So every history file that both have must agree, even one of a timeline on which nothing was received: the
    server would switch timelines where its own file says. Without the file of its own timeline nothing proves
    where that began, so it counts as diverged: PostgreSQL never removes the file, and a clone always heals.
    Not seen here: two servers promoted from the very same position to the same number; `history` compares the WAL.
    """
    parents = {switch.timeline: tuple(history[:index]) for index, switch in enumerate(history)}
    parents[leader.timeline] = tuple(history)
    if local.timeline not in parents:
        return f"timeline {local.timeline} is not in its history"
    if local.timeline > 1 and local.timeline not in files:
        return f"the history file of timeline {local.timeline} is missing here, so its origin cannot be compared"
    for timeline in sorted(files.keys() & parents.keys()):
        if files[timeline] != parents[timeline]:
            return f"timeline {timeline} began {_told(files[timeline])} here and {_told(parents[timeline])} there"
    # On the leader's own timeline only what lies beyond its end is foreign: it lost WAL that it had sent.
    ends = {switch.timeline: switch.lsn for switch in history} | {leader.timeline: leader.lsn}
    end = ends[local.timeline]
    return f"timeline {local.timeline} ends at {end} there" if local.lsn > end else ""


def _told(history: History) -> str:
    return "after " + ", ".join(f"{switch.timeline} at {switch.lsn}" for switch in history) if history else "as first"
