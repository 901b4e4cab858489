"""Actions on the local server and its data directory: frozen values, each in one lane."""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.lanes import Lane, Upstream
from hamgr.core.quorum import SyncRule
from hamgr.core.server import Birth
from hamgr.core.units import Instant, Lsn, Term


@dataclass(frozen=True, slots=True)
class InitDb:
    """Make a new data directory. Only for the holder of the initializer's leadership."""

    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class Clone:
    """Make the data directory a copy of `source`, keeping aside what is there when `keep_aside`."""

    source: Upstream
    keep_aside: bool = False
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class Rewind:
    """Bring a diverged, stopped server back onto the history of `source` with pg_rewind."""

    source: Upstream
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class StartPrimary:
    """Start the stopped server out of recovery. Guarded: only while this member leads in `term`."""

    term: Term
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class StartStandby:
    """Start the stopped server in recovery, streaming from `upstream` if one is named.

    With `check_history` the local end of WAL is first compared with the upstream's history; the outcome is
    refused with code `diverged` if it is no ancestor.
    """

    upstream: Upstream | None
    """None: whatever it was told to stream from before (the cluster has not been read since)."""
    check_history: bool = False
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class CheckHistory:
    """Compare a running replica that does not stream from `upstream` with its history; refused if it diverged."""

    upstream: Upstream
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class StopServer:
    """Stop: fast, then immediate, then kill of the tree, all within `budget_s`; then read where its WAL ends."""

    budget_s: float
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class HandOverStop:
    """Stop like StopServer, with a successor in mind. `request_revision` 0: because this agent is to end."""

    request_revision: int
    successor: str
    budget_s: float
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class Fence:
    """Kill the whole server tree now, whatever else is being done with the server."""

    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class ExamineCrash:
    """Kill what is left of the tree of a dead server and read from its disk where the WAL ends."""

    from_lsn: Lsn
    """A position that is known to be written; 0: start at the last checkpoint."""
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class PutDown:
    """Kill the whole tree of a primary that is ill and, unless its disk hangs, read where its WAL ends."""

    from_lsn: Lsn
    cause: str
    """Code for the record: server_hung, disk_failed."""
    since: Instant
    reads_wal: bool
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class Promote:
    """Arm the guard, promote the running standby, verify that it writes. Guarded by the lease's deadline.

    `sync`: the rule that is in force before the first commit after a promotion; None: what the configuration says.
    Where the server runs as a primary already, its rule stays: its electorate was made for that one.
    """

    term: Term
    sync: SyncRule | None = None
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class Follow:
    """Point the running replica at another upstream, without a restart; at none if it names no host, and then no WAL
    receiver is left.
    """

    upstream: Upstream
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class RestartServer:
    """Checkpoint, stop and start again in the same role, because an operator ordered it."""

    order_id: int
    stop_budget_s: float
    as_primary_in: Term | None
    upstream: Upstream
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class Reinitialize:
    """Stop the replica, throw its data directory away and clone it from `source`."""

    order_id: int
    source: Upstream
    lane = Lane.SERVER


AFTER_PROMOTION = -1
BEFORE_STOP = -2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Checkpoint (restart point on a replica) while serving, so that the stop that follows is short.

    For AFTER_PROMOTION: so that the control file knows the new timeline, without which nobody can be rewound to it.
    For BEFORE_STOP: this agent is to end.
    """

    request_revision: int
    lane = Lane.CHECKPOINT


@dataclass(frozen=True, slots=True)
class EnsureSlots:
    """Keep one physical slot for each named member, and make these declared logical slots. `lost` are not made anew."""

    members: tuple[str, ...]
    logical: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    lane = Lane.SLOTS


@dataclass(frozen=True, slots=True)
class AwaitStandbys:
    """Consumers of failover slots get no change that has not reached the standbys of these physical slots."""

    slots: tuple[str, ...]
    lane = Lane.SLOTS


@dataclass(frozen=True, slots=True)
class DropFormerSlots:
    """The replica's failover slots of these names, left from its time as the primary, are gone."""

    slots: tuple[str, ...]
    lane = Lane.SLOTS


@dataclass(frozen=True, slots=True)
class SetSync:
    """`synchronous_standby_names` of the running primary is that of `rule`; None: what the configuration says."""

    rule: SyncRule | None
    lane = Lane.SYNC


@dataclass(frozen=True, slots=True)
class EnsureSentry:
    """A session inside the server watches the guard's page, for the case that nobody else is left to do it."""

    lane = Lane.SENTRY


@dataclass(frozen=True, slots=True)
class NoteBirth:
    """Note in the data directory of the running server in which term its timeline was begun. The outcome's value is
    what it tells then, which may be an older note of that timeline.
    """

    birth: Birth
    lane = Lane.BIRTH


@dataclass(frozen=True, slots=True)
class ApplyConfig:
    """Take over the dynamic configuration of that revision: write what changed, reload."""

    revision: int
    lane = Lane.CONFIG
