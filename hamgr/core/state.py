"""All that a member knows, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hamgr.core.actions import Action, Lane
from hamgr.core.cluster import ClusterView, Tags
from hamgr.core.pipeline import Passage
from hamgr.core.policy import Policy
from hamgr.core.server import ServerView
from hamgr.core.units import Instant, Lsn, Term, Timeline


@dataclass(frozen=True, slots=True)
class Myself:
    """This member as configured on its host."""

    name: str
    conn_url: str = ""
    api_url: str = ""
    version: str = ""
    tags: Tags = field(default_factory=Tags)


@dataclass(frozen=True, slots=True)
class Lease:
    """This agent's lease. `term` is the one whose leader key hangs on it, 0 while it does not lead."""

    lease_id: int = 0
    deadline: Instant | None = None
    term: Term = Term(0)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An action that the executor has not ended yet."""

    action: Action
    since: Instant


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures in a row of one kind of action, by its class name."""

    kind: str
    code: str
    text: str
    count: int
    at: Instant


@dataclass(frozen=True, slots=True)
class Crash:
    """The server of a leader ended without our asking."""

    at: Instant
    examined_at: Instant | None = None
    end_timeline: Timeline = Timeline(0)
    end_lsn: Lsn | None = None
    """Where the WAL on this disk ends; None: could not be read."""
    offered_at: Instant | None = None
    declined: bool = False
    """It was offered, and no replica that holds everything took it in time."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """A planned change of leader, as its present leader sees it."""

    request_revision: int
    """0: not asked for by a request but by the end of this agent."""
    successor: str
    began_at: Instant
    stopped_at: Instant
    end_timeline: Timeline = Timeline(0)
    end_lsn: Lsn | None = None
    was_clean: bool = False
    offered_at: Instant | None = None
    aborted: bool = False


@dataclass(frozen=True, slots=True)
class Vacancy:
    """Nobody leads, or the holder offers the lead: an election for `term` is on."""

    term: Term
    since: Instant
    cold: bool
    """This server did not run as a replica when the vacancy was first seen."""
    voted_at: Instant | None = None
    open_after: int = 0
    """Revision of the last view before it: a ballot as old as that was cast for something else."""


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's order that has not been carried out yet."""

    order_id: int
    kind: str
    at: Instant
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """What is known. Made anew by every fact; nothing in it is ever changed."""

    me: Myself
    policy: Policy = field(default_factory=Policy)
    policy_revision: int = -1
    policy_problems: tuple[str, ...] = ()
    applied_revision: int = -1
    """Revision of the configuration whose server parameters are in force; -1 asks for them to be applied."""
    cluster: ClusterView | None = None
    store_error: str = ""
    store_failed_at: Instant | None = None
    lease: Lease = field(default_factory=Lease)
    server: ServerView = field(default_factory=ServerView)
    guard_alive: bool = True
    wall_ahead_s: float | None = None
    """The wall clock less CLOCK_BOOTTIME; None: not seen yet."""
    under_way: tuple[UnderWay, ...] = ()
    progress: str = ""
    failures: tuple[Failure, ...] = ()
    crash: Crash | None = None
    started_in_place_at: Instant | None = None
    """When this server was last started again as a primary after a crash."""
    hand_over: HandOver | None = None
    vacancy: Vacancy | None = None
    passage: Passage | None = None
    diverged: bool = False
    """The local WAL is no ancestor of the leader's history."""
    must_clone: bool = False
    """It cannot be mended in place: pg_rewind gave up, or the WAL that it needs is gone."""
    prepared_for: int = 0
    """Revision of the request for which this member's checkpoint is done."""
    prepared_at: Instant | None = None
    verified_term: Term = Term(0)
    """The term in which this server was seen to accept writes; 0: it has not been."""
    status_written_at: Instant | None = None
    not_streaming_since: Instant | None = None
    leader_heard_at: Instant | None = None
    """When this replica last had a message from its upstream: dates the fault when a host is lost."""
    slots_ensured_at: Instant | None = None
    orders: tuple[Order, ...] = ()
    stopping_since: Instant | None = None
    replace_ordered_at: Instant | None = None
    foreign_since: Instant | None = None
    gave_up_at: Instant | None = None
    """When this member gave the leader key up because its server failed it."""

    def is_busy(self, lane: Lane) -> bool:
        """True while an action of that lane is under way."""
        return any(task.action.lane is lane for task in self.under_way)

    def running(self, kind: type) -> UnderWay | None:
        """The action of that class which is under way, if any."""
        return next((task for task in self.under_way if isinstance(task.action, kind)), None)

    def failure(self, kind: str) -> Failure | None:
        """The present run of failures of that kind of action, if any."""
        return next((failure for failure in self.failures if failure.kind == kind), None)
