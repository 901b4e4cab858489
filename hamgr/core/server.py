"""The local PostgreSQL server and its data directory, as the probe last saw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from hamgr.core.units import Instant, Lsn, Term, Timeline


class DataDir(Enum):
    """What stands in the data directory."""

    UNKNOWN = "unknown"
    EMPTY = "empty"
    VALID = "valid"
    UNFINISHED = "unfinished"
    """An initdb or base backup of ours that did not end; ours to remove (it holds our marker file)."""
    UNUSABLE = "unusable"
    """Not ours to touch: wrong owner, no data directory, other major version. `problem` says why."""


class Phase(Enum):
    """What the server process does."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    STARTING = "starting"
    """Process alive, not yet accepting connections (crash recovery included)."""
    RUNNING = "running"
    STOPPING = "stopping"
    CRASHED = "crashed"
    """Ended without our asking."""


DOWN = (Phase.STOPPED, Phase.CRASHED)


@dataclass(frozen=True, slots=True)
class ControlFile:
    """What pg_controldata says of a server that does not run."""

    system_identifier: str
    cluster_state: str
    timeline: Timeline
    checkpoint_lsn: Lsn
    redo_lsn: Lsn
    min_recovery_timeline: Timeline = Timeline(0)
    min_recovery_lsn: Lsn = Lsn(0)

    @property
    def was_shut_down_cleanly(self) -> bool:
        return self.cluster_state in ("shut down", "shut down in recovery")

    @property
    def was_primary(self) -> bool:
        return self.cluster_state in ("shut down", "in production", "in crash recovery", "shutting down")


@dataclass(frozen=True, slots=True)
class Walsender:
    """One row of pg_stat_replication on the primary."""

    application_name: str
    client_addr: str
    state: str
    sync_state: str
    sync_priority: int
    usename: str
    flush_lsn: Lsn


class Vital(Enum):
    """What a server must be able to do, each checked by itself once per loop_wait. DESIGN.md 5.7."""

    CONNECTION = "connection"
    """A fresh connection is accepted (also by a server whose ordinary connections are all taken)."""
    COMMIT = "commit"
    """A small commit is logged and flushed here; standbys do not matter. Checked on a primary only."""
    DATA_DISK = "data_disk"
    """The data directory's file system takes a write and an fsync, and has room."""
    WAL_DISK = "wal_disk"
    """So does that of the WAL, where it is another one."""

    @property
    def is_of_disk(self) -> bool:
        return self in (Vital.DATA_DISK, Vital.WAL_DISK)


@dataclass(frozen=True, slots=True)
class Illness:
    """One vital check after the other has failed since `since`. `is_hung`: it ended by its deadline, with no answer."""

    vital: Vital
    problem: str
    since: Instant
    is_hung: bool


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """A process that cannot be mistaken for a later one of the same pid."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Birth:
    """In which leadership a timeline was begun: two servers promoted apart from each other both take the next number,
    and only this tells their timelines apart (docs/adr/0018). Zeros: not known.
    """

    timeline: Timeline = Timeline(0)
    term: Term = Term(0)

    def term_of(self, timeline: Timeline) -> Term:
        """The term in which that timeline was begun; 0: not known."""
        return self.term if self.timeline == timeline else Term(0)


NO_BIRTH = Birth()


@dataclass(frozen=True, slots=True)
class ServerView:
    """The server as last probed. LSNs are 0 and timelines 0 where they are not known.

    On a primary `written_lsn` is the WAL write position; on a replica `received_lsn` is the greater of what
    was received and flushed and what was replayed. A replica that was just started may hold more, received before and
    not replayed yet: only a ballot's own measurement counts that.
    """

    phase: Phase = Phase.UNKNOWN
    data_dir: DataDir = DataDir.UNKNOWN
    problem: str = ""
    identity: ServerIdentity | None = None
    probed_at: Instant = Instant(0.0)
    answered: bool = False
    """True when SQL was answered by this process: fields below come from it."""
    system_identifier: str = ""
    server_version: int = 0
    major_version: int = 0
    in_recovery: bool | None = None
    is_read_only: bool = False
    """default_transaction_read_only or recovery: a write would be refused."""
    timeline: Timeline = Timeline(0)
    birth: Birth = NO_BIRTH
    """What the data directory's note says; it may be of an older timeline than the server's own."""
    written_lsn: Lsn = Lsn(0)
    received_lsn: Lsn = Lsn(0)
    replayed_lsn: Lsn = Lsn(0)
    replayed_at: str = ""
    replay_paused: bool = False
    upstream: str = ""
    """'host:port' that primary_conninfo points at; empty on a primary."""
    streaming: bool = False
    last_message_age_s: float | None = None
    """Seconds since the WAL receiver last heard from its upstream, when probed."""
    started_at: str = ""
    pending_restart: bool = False
    pending_restart_reason: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    walsenders: tuple[Walsender, ...] = ()
    slots: Mapping[str, Lsn] = field(default_factory=dict)
    """Physical slots of this server and their positions."""
    makes_failover_slots: bool = False
    """PostgreSQL 17 or newer that runs with wal_level logical."""
    failover_slots: Mapping[str, Lsn] = field(default_factory=dict)
    """Logical slots with `failover` that can be used here once this is the primary, and what they have confirmed."""
    former_slots: tuple[str, ...] = ()
    """On a replica: failover slots from its time as the primary. They keep it from copying the present ones."""
    awaited_slots: tuple[str, ...] = ()
    """`synchronized_standby_slots` as it is in force: for whose standbys the consumers of failover slots wait."""
    sync_names: str = ""
    """synchronous_standby_names as it is in force."""
    has_sentry: bool = False
    """A session of this server watches the guard's page (docs/adr/0009)."""
    control: ControlFile | None = None
    """Read while the server does not run."""

    @property
    def timeline_term(self) -> Term:
        """The term in which the server's timeline was begun; 0: not known."""
        return self.birth.term_of(self.timeline)

    @property
    def was_primary(self) -> bool:
        """It does not run, and ran as a primary last."""
        return self.control is not None and self.control.was_primary

    @property
    def is_alive(self) -> bool:
        return self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING)

    @property
    def is_primary(self) -> bool:
        """Runs out of recovery: may acknowledge writes."""
        return self.phase is Phase.RUNNING and self.answered and self.in_recovery is False

    @property
    def is_replica(self) -> bool:
        return self.phase is Phase.RUNNING and self.answered and self.in_recovery is True
