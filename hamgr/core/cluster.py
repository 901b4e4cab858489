"""The cluster as etcd tells it: frozen values decoded from the keys of one scope.

Every `mod_revision` is etcd's revision of the key's last change; transactions compare it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime


@dataclass(frozen=True, slots=True)
class Tags:
    """What an operator says of one member; `extra` holds user tags, which only `tag_` queries read."""

    nofailover: bool = False
    noloadbalance: bool = False
    clonefrom: bool = False
    nosync: bool = False
    failover_priority: int = 1
    sync_priority: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def may_lead(self) -> bool:
        """Patroni reads failover_priority 0 as nofailover, and so do we."""
        return not self.nofailover and self.failover_priority > 0


class Member(NamedTuple):
    """One member as it announced itself; the key is on its lease and vanishes with it.

    A named tuple like `State`, and for the same reason: it is made and compared in every decision.
    """

    name: str
    conn_url: str = ""
    api_url: str = ""
    state: str = "unknown"
    role: str = "replica"
    version: str = ""
    server_version: int = 0
    timeline: Timeline = Timeline(0)
    timeline_term: Term = Term(0)
    """The term in which that timeline was begun; 0: not known."""
    xlog_location: Lsn = Lsn(0)
    replication_state: str = ""
    tags: Tags = Tags()
    pending_restart: bool = False
    ready_for: int = 0
    """mod_revision of the request that this member has prepared for (its checkpoint is done)."""
    note: str = ""
    """Why the member is not well, as a reason code; empty when it is."""
    ill: str = ""
    """What its server or its disks cannot do (vitals, comma separated); empty: nothing is known to be wrong."""
    lease_id: int = 0
    mod_revision: int = 0


@dataclass(frozen=True, slots=True)
class LeaderKey:
    """Who holds the leader key, by which lease."""

    name: str
    lease_id: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """One replica's vote for itself: what it has, for which term. On its lease."""

    name: str
    term: Term
    timeline: Timeline
    lsn: Lsn
    priority: int
    timeline_term: Term = Term(0)
    """The term in which that timeline was begun; 0: not known."""
    mod_revision: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """The holder's server has ended; whoever has all its WAL may take the leader key from the holder.

    `elapsed_s` holds, by stage, the seconds that had passed on the holder's clock since the fault when
    the offer was written, so that the successor's record can count them without comparing clocks.
    """

    holder: str
    term: Term
    timeline: Timeline
    lsn: Lsn
    cause: str
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What became of the pools that were to be held, for the successor's record."""
    timeline_term: Term = Term(0)
    """The term in which that timeline was begun; 0: not known."""


@dataclass(frozen=True, slots=True)
class Request:
    """The `failover` key: what a person asked for, and the holder's offer once its server has ended."""

    leader: str = ""
    candidate: str = ""
    scheduled_at: WallTime | None = None
    allow_data_loss: bool = False
    offer: Offer | None = None
    mod_revision: int = 0

    @property
    def is_switchover(self) -> bool:
        """One that names the leader is planned; one that names only a candidate is a manual failover."""
        return bool(self.leader)


@dataclass(frozen=True, slots=True)
class Status:
    """The leader's position, its members' slots and its failover slots, written at most once per loop_wait."""

    optime: Lsn = Lsn(0)
    timeline: Timeline = Timeline(0)
    slots: Mapping[str, Lsn] = field(default_factory=dict)
    mod_revision: int = field(default=0, compare=False)
    """When it was written; no part of what it says."""
    lost_slots: Mapping[str, Lsn] = field(default_factory=dict)
    """Declared logical slots that a leader had and its successor did not have in sync, and where they stood."""
    timeline_term: Term = Term(0)
    """The term in which that timeline was begun; 0: not known."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """The synchronous set: who may be elected without losing an acknowledged commit."""

    leader: str = ""
    members: tuple[str, ...] = ()
    quorum: int = 0
    mod_revision: int = 0


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One leadership's end, in Patroni's shape: [timeline, lsn, reason, timestamp, new_leader]."""

    timeline: Timeline
    lsn: Lsn
    reason: str
    timestamp: str
    new_leader: str


@dataclass(frozen=True, slots=True)
class Config:
    """The `config` key: dynamic configuration as written; `values` is None where it cannot be read."""

    values: Mapping[str, Any] | None
    mod_revision: int = 0


NO_ROSTER: Mapping[str, str] = {}


class ClusterView(NamedTuple):
    """All keys of a scope (without the records) at one revision.

    `seen_at` is the local instant before the read was sent, or the arrival of the watch event that brought it
    up to date: a decision that needs a linearizable read compares it.
    """

    revision: int
    seen_at: Instant
    system_identifier: str = ""
    initialize_revision: int = 0
    config: Config | None = None
    leader: LeaderKey | None = None
    term: Term = Term(0)
    term_revision: int = 0
    status: Status = Status()
    members: tuple[Member, ...] = ()
    request: Request | None = None
    ballots: tuple[Ballot, ...] = ()
    sync: SyncState | None = None
    history: tuple[HistoryLine, ...] = ()
    history_revision: int = 0
    roster: Mapping[str, str] = NO_ROSTER
    roster_revision: int = 0
    released_term: Term = Term(0)
    """The last leadership that was given up in order: no former leader can still be renewing it through its peers."""
    problems: tuple[str, ...] = ()
    """Keys that hold what we cannot read: '<key>: <why>'. They count as absent."""

    @property
    def config_revision(self) -> int:
        """0 while there is no config key: a transaction comparing it then demands that there be none."""
        return self.config.mod_revision if self.config else 0

    def member(self, name: str) -> Member | None:
        """The member of that name, or None when its key is absent (its lease is gone)."""
        for member in self.members:
            if member.name == name:
                return member
        return None

    def ballot(self, name: str) -> Ballot | None:
        """The ballot of that name, or None."""
        for ballot in self.ballots:
            if ballot.name == name:
                return ballot
        return None

    def counts_on(self, name: str) -> bool:
        """The leader has entered that member into its roster; true of everybody where there is none."""
        return not self.roster or name in self.roster

    def is_led_by(self, name: str) -> bool:
        """True when `name` holds the leader key in this view."""
        return self.leader is not None and self.leader.name == name
