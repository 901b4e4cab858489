"""A PostgreSQL server reduced to what decisions depend on: timelines, WAL, recovery, life and death.

Servers compare positions and timelines only, as PostgreSQL does; the chain of commits (wal.py) is for the checkers,
which so see what PostgreSQL would not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hamgr.core.quorum import ALONE, SyncRule
from hamgr.core.server import NO_BIRTH, DataDir, Phase, ServerIdentity
from hamgr.core.units import Lsn
from hamgr.sim.ground import Ground
from hamgr.sim.process import Process
from hamgr.sim.wal import Commit

START_LSN = 0x5000000
SHUTDOWN_CHECKPOINT_BYTES = 0x78


class Disk(Enum):
    """What the file systems of a host do."""

    WELL = "well"
    FULL = "full"
    HUNG = "hung"


@dataclass(slots=True, eq=False)
class Written:
    """One write of a client: committed on `host`, and acknowledged unless `acknowledged_at` is None."""

    number: int
    host: str
    sent_at: float
    commit: Commit | None = None
    term: int = 0
    """In which its server was made a primary."""
    acknowledged_at: float | None = None
    was_guarded: bool = False
    """It was acknowledged while synchronous mode promised that it would not be lost."""
    is_lost: bool = False
    """A later primary lacks it."""


class Server(Process):
    """One data directory and the whole tree of processes on it, of which `orphans` outlive the postmaster."""

    def __init__(self, ground: Ground, name: str) -> None:
        super().__init__(ground)
        self.ground = ground
        self.name = name
        self.data_dir = DataDir.EMPTY
        self.problem = ""
        self.disk = Disk.WELL
        self.system_identifier = ""
        self.timeline = 1
        self.newest_timeline = 1
        """Of those whose history files are on this disk."""
        self.birth = NO_BIRTH
        self.term = 0
        """In which it was made a primary last."""
        self.ends: dict[int, int] = {}
        """Earlier timelines of its history -> where each ended."""
        self.lsn = 0
        self.head: Commit | None = None
        self.phase = Phase.STOPPED
        self.in_recovery = False
        self.was_primary = False
        self.was_clean = True
        self.identity: ServerIdentity | None = None
        self.upstream = ""
        self.streaming = False
        self.receives = True
        """False: it streams, but nothing more arrives (a lagging replica)."""
        self.orphans = False
        """The postmaster is gone; a busy backend goes on."""
        self.accepts_from = 0.0
        """Before this moment no new request reaches it: its host has just thawed."""
        self.slots: dict[str, Lsn] = {}
        self.failover_slots: dict[str, Lsn] = {}
        """Its own: no replica copies them here, as none does before its consumer has moved on."""
        self.awaited_slots: tuple[str, ...] = ()
        self.sync: SyncRule = ALONE
        """The rule by which commits are released."""
        self.sync_shown: SyncRule = ALONE
        """The rule that a session is shown. A walsender takes it over a moment later."""
        self.has_sentry = False
        self.flushed: dict[str, int] = {}
        """What each connected standby has told that it flushed."""
        self.waiting: list[Written] = []
        self.starts = 0
        self.on_wal: Callable[[Server], None] = _nothing
        self.on_last_wal: Callable[[Server], None] = _nothing
        self.on_end: Callable[[Server], None] = _nothing
        self.on_exit: Callable[[Server, ServerIdentity], None] = _no_exit
        self.on_ready: Callable[[Server], None] = _nothing
        self.on_acknowledged: Callable[[Written], None] = _no_ack

    # -- what it is --------------------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        """The postmaster lives."""
        return self.phase in (Phase.RUNNING, Phase.STARTING, Phase.STOPPING)

    @property
    def is_stuck(self) -> bool:
        """It runs, and gives nobody an answer."""
        return self.phase is Phase.RUNNING and (self.is_frozen or self.disk is Disk.HUNG)

    @property
    def is_writable(self) -> bool:
        """A client's new write is committed."""
        return self.phase is Phase.RUNNING and not self.in_recovery and self.frozen_at is None and self._can_log

    @property
    def may_acknowledge(self) -> bool:
        """Some process of it could still tell a client that its write is committed."""
        runs_free = self.phase is Phase.RUNNING or self.orphans
        return runs_free and not self.in_recovery and self.frozen_at is None and self._can_log

    @property
    def _can_log(self) -> bool:
        return self.disk is Disk.WELL

    def is_ancestor_of(self, other: Server) -> bool:
        """What PostgreSQL can tell: this end of WAL lies on the other's history, by timeline and position."""
        if self.timeline == other.timeline:
            return self.lsn <= other.lsn
        return self.timeline in other.ends and self.lsn <= other.ends[self.timeline]

    # -- data --------------------------------------------------------------------------------------------------

    def initialise(self, system_identifier: str) -> None:
        """A new, empty database cluster."""
        self.data_dir = DataDir.VALID
        self.system_identifier = system_identifier
        self.timeline, self.ends, self.lsn, self.head = 1, {}, START_LSN, None
        self.newest_timeline, self.birth = 1, NO_BIRTH
        self.was_primary, self.was_clean = True, True

    def take_wal(self, timeline: int, ends: dict[int, int], lsn: int, head: Commit | None) -> None:
        """All WAL up to there is on this disk."""
        self.timeline, self.ends, self.lsn, self.head = timeline, ends, lsn, head

    def copy_from(self, other: Server) -> None:
        """Now the same as the other, as a stopped standby (base backup, or a rewind that worked)."""
        self.data_dir = DataDir.VALID
        self.system_identifier = other.system_identifier
        self.take_wal(other.timeline, other.ends, other.lsn, other.head)
        self.newest_timeline, self.birth, self.slots = other.newest_timeline, NO_BIRTH, {}
        self.was_primary, self.was_clean = False, True

    def append(self, number: int, size: int) -> Commit:
        """One more commit at the end of this WAL."""
        self.lsn += size
        self.head = Commit(number, self.lsn, self.head)
        self.on_wal(self)
        return self.head

    # -- life --------------------------------------------------------------------------------------------------

    def begin_start(self, *, as_standby: bool, upstream: str, takes_s: float) -> None:
        """The postmaster runs; it accepts connections after `takes_s` seconds."""
        self.launch()
        self.starts += 1
        self.sync = self.sync_shown
        self.identity = ServerIdentity(1000 + self.starts, self.starts)
        self.phase, self.in_recovery, self.upstream = Phase.STARTING, as_standby, upstream
        self.streaming = self.orphans = self.has_sentry = False
        self.at(self.ground.now + takes_s, self._ready)

    def start(self, *, as_standby: bool, upstream: str = "") -> None:
        """It runs at once: by somebody else's hand."""
        self.begin_start(as_standby=as_standby, upstream=upstream, takes_s=0.0)
        self._ready()

    def _ready(self) -> None:
        if self.phase is not Phase.STARTING:
            return
        self.phase = Phase.RUNNING
        self.was_primary, self.was_clean = not self.in_recovery, False
        self.on_ready(self)

    def begin_stop(self, takes_s: float) -> None:
        """Fast shutdown: no new commits; what streams gets the last record, then the postmaster ends."""
        if self.phase in (Phase.RUNNING, Phase.STARTING):
            started = self.phase is Phase.STARTING
            self.phase = Phase.STOPPING
            if not self.in_recovery and not started:
                self.lsn += SHUTDOWN_CHECKPOINT_BYTES
                self.on_wal(self)
            self.at(self.ground.now + takes_s, lambda: self._end_in_order(was_started=not started))

    def _end_in_order(self, *, was_started: bool) -> None:
        """The walsenders have sent everything before the postmaster ends."""
        if was_started and not self.in_recovery:
            self.on_last_wal(self)
        self.stop(clean=was_started)

    def stop(self, *, clean: bool) -> None:
        """No process of it is left."""
        identity, was_alive = self.identity, self.is_alive
        self.end()
        self.phase, self.identity = Phase.STOPPED, None
        self.was_clean = clean if was_alive else self.was_clean
        self.streaming = self.orphans = self.has_sentry = False
        self.waiting = []
        self.on_end(self)
        self.flushed = {}
        if identity is not None and was_alive:
            self.on_exit(self, identity)

    def lose_postmaster(self, orphans_for_s: float) -> None:
        """SIGKILL to the postmaster alone: backends that are busy go on until they notice."""
        identity = self.identity
        is_busy = self.phase is Phase.RUNNING and not self.in_recovery
        if identity is None or not is_busy or orphans_for_s <= 0.0:
            self.stop(clean=False)
            return
        self.phase, self.identity = Phase.STOPPED, None
        self.was_clean, self.orphans, self.has_sentry = False, True, False
        self.at(self.ground.now + orphans_for_s, lambda: self.stop(clean=False))
        self.on_exit(self, identity)

    def begin_promotion(self, takes_s: float) -> None:
        """Recovery ends after `takes_s` seconds, on a timeline of its own. The setting of its upstream stays."""
        upstream = self.upstream
        self.at(self.ground.now + takes_s, lambda: self.promote(upstream))

    def promote(self, upstream: str = "") -> None:
        """Out of recovery, if it is in there. `upstream`: whom it would follow if it were started as a standby."""
        if self.phase is not Phase.RUNNING or not self.in_recovery:
            return
        self.ends = {**self.ends, self.timeline: self.lsn}
        self.timeline = max(self.timeline, self.newest_timeline) + 1
        self.in_recovery, self.was_primary, self.streaming, self.upstream = False, True, False, upstream
        self.on_ready(self)

    # -- commits -----------------------------------------------------------------------------------------------

    def commit(self, written: Written, size: int) -> None:
        """A client's write is in this WAL; it is acknowledged as soon as the rule in force allows."""
        written.term = self.term
        written.commit = self.append(written.number, size)
        self.waiting.append(written)
        self.release()

    def release(self) -> None:
        """Acknowledge what the rule in force allows."""
        if not self.waiting or not self.may_acknowledge:
            return
        flushed_lsn = self._flushed_by_rule()
        still = []
        for written in self.waiting:
            if written.commit is not None and written.commit.lsn <= flushed_lsn:
                written.acknowledged_at = self.ground.now
                self.on_acknowledged(written)
            else:
                still.append(written)
        self.waiting = still

    def _flushed_by_rule(self) -> int:
        """Up to where commits may be acknowledged. Source: PostgreSQL's manual, synchronous_standby_names."""
        rule = self.sync
        if not rule.count:
            return self.lsn
        connected = [self.flushed[name] for name in rule.names if name in self.flushed]
        if len(connected) < rule.count:
            return -1
        if rule.any_of:
            return sorted(connected, reverse=True)[rule.count - 1]
        return min(connected[: rule.count])

    def set_sync(self, rule: SyncRule | None, takes_s: float) -> None:
        """Reloaded: every session sees the rule, and after `takes_s` seconds commits are released by it."""
        self.sync_shown = rule or ALONE
        if takes_s <= 0.0:
            self._release_by_shown()
        else:
            self.at(self.ground.now + takes_s, self._release_by_shown)

    def _release_by_shown(self) -> None:
        self.sync = self.sync_shown
        self.release()


def _nothing(_server: Server) -> None:
    return None


def _no_exit(_server: Server, _identity: ServerIdentity) -> None:
    return None


def _no_ack(_written: Written) -> None:
    return None
