"""What decide may ask the executor to do: a closed union of frozen values, each in one lane.

At most one action of a lane is under way at a time; `Fence` alone may overtake what runs in its lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from hamgr.core.cluster import HistoryLine, LeaderKey, Member, Offer, Status, SyncState
from hamgr.core.pipeline import Record
from hamgr.core.quorum import SyncRule
from hamgr.core.units import Instant, Lsn, Term


class Lane(Enum):
    """Things that must not be done at the same time share a lane."""

    SERVER = "server"
    LEADERSHIP = "leadership"
    LEASE = "lease"
    BALLOT = "ballot"
    REQUEST = "request"
    MEMBER = "member"
    STATUS = "status"
    RECORD = "record"
    HISTORY = "history"
    ROSTER = "roster"
    SLOTS = "slots"
    CONFIG = "config"
    CHECKPOINT = "checkpoint"
    SYNC = "sync"
    SENTRY = "sentry"
    PEERS = "peers"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server to stream, clone or rewind from. `name` is empty when none is known yet."""

    name: str = ""
    host: str = ""
    port: int = 5432


# -- the local server ------------------------------------------------------------------------------------------


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
    """Compare a running replica that does not stream with `upstream`'s history; refused if it diverged."""

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
    checkpoint_first: bool = False
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

    `sync`: the rule that is in force before the first commit; None: synchronous replication is not hamgr's to set.
    """

    term: Term
    sync: SyncRule | None = None
    lane = Lane.SERVER


@dataclass(frozen=True, slots=True)
class Follow:
    """Point the running replica at another upstream, without a restart."""

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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Checkpoint (restart point on a replica) while serving, so that the stop that follows is short.

    For AFTER_PROMOTION: so that the control file knows the new timeline, without which nobody can be rewound to it.
    """

    request_revision: int
    lane = Lane.CHECKPOINT


@dataclass(frozen=True, slots=True)
class EnsureSlots:
    """Keep one physical slot for each named member, on whichever role this server has."""

    members: tuple[str, ...]
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
class ApplyConfig:
    """Take over the dynamic configuration of that revision: write what changed, reload."""

    revision: int
    lane = Lane.CONFIG


# -- the store -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Get a lease of `ttl_s` for this agent; renewals of an earlier one end."""

    ttl_s: float
    lane = Lane.LEASE


@dataclass(frozen=True, slots=True)
class TakeInitialize:
    """Race for making the cluster: leader key and `initialize`, in one transaction."""

    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class FinishInitialize:
    """Enter the system identifier (and the seed of the configuration) for good."""

    system_identifier: str
    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class TakeLeader:
    """Take the leader key: all that was compared in deciding is compared again by the transaction."""

    term: Term
    """The term to be entered: the view's term + 1."""
    from_holder: LeaderKey | None
    """The holder that offers it, or None: the key must be absent."""
    request_revision: int
    """0: there must be no request key."""
    config_revision: int
    ballots: tuple[tuple[str, int], ...]
    """(member, mod_revision of its ballot); 0: it must have none."""
    roster_revision: int | None = None
    """None: the roster does not matter (the holder offers the lead)."""
    sync_revision: int | None = None
    """With synchronous mode: the electorate was judged at this revision, and becomes this member alone."""
    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class AskPeers:
    """Ask every other member of the roster, by REST, for its promise not to campaign for one ttl.

    Done only if all of them gave it: then the deadline counts from before the first was asked.
    """

    term: Term
    peers: tuple[tuple[str, str], ...]
    """(name, REST address)."""
    lane = Lane.PEERS


@dataclass(frozen=True, slots=True)
class RetakeLeader:
    """etcd is back and the leader key has expired meanwhile: it is this member's again, in the same term.

    Refused if term or roster have changed. Deletes all ballots: who voted has streamed from this member since.
    """

    term: Term
    term_revision: int
    roster_revision: int
    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class ReattachLeader:
    """Write the leader key that this member holds afresh: what was sent before and compares it is void."""

    old: LeaderKey
    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class ReleaseLeader:
    """Give the leader key up. Only when no server process is left.

    `parting` is left in the request key for the record of whoever is elected: where this WAL ended, and why.
    """

    term: Term
    leader_revision: int = 0
    """mod_revision of the leader key that is given up."""
    parting: Offer | None = None
    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class PutOffer:
    """Publish that the server has ended and where its WAL ends. `successor` is empty when anyone may take it."""

    offer: Offer
    successor: str
    request_revision: int
    leader_revision: int = 0
    """mod_revision of the leader key that is offered."""
    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class WithdrawOffer:
    """Take the offer back, unless somebody took the leader key meanwhile."""

    request_revision: int
    lane = Lane.LEADERSHIP


@dataclass(frozen=True, slots=True)
class CastBallot:
    """Measure the received WAL afresh and vote for this member with it."""

    term: Term
    at_least: Lsn
    """With an offer: wait a moment until this much has been received."""
    stops_receiver: bool = False
    """The WAL receiver is stopped before it is measured, so that the old primary gets no acknowledgement any more."""
    lane = Lane.BALLOT


@dataclass(frozen=True, slots=True)
class ClearRequest:
    """Remove a request that is refused or fulfilled; `refusal` is its reason in words."""

    request_revision: int
    refusal: str
    lane = Lane.REQUEST


@dataclass(frozen=True, slots=True)
class PutMember:
    """Announce this member."""

    member: Member
    lane = Lane.MEMBER


@dataclass(frozen=True, slots=True)
class PutStatus:
    """Write the leader's position."""

    status: Status
    lane = Lane.STATUS


@dataclass(frozen=True, slots=True)
class PutRecord:
    """Write the record of a leadership change."""

    record: Record
    lane = Lane.RECORD


@dataclass(frozen=True, slots=True)
class PutHistory:
    """Write the cluster's history with one more line."""

    lines: tuple[HistoryLine, ...]
    expected_revision: int
    lane = Lane.HISTORY


@dataclass(frozen=True, slots=True)
class PutRoster:
    """Enter the members that may campaign."""

    roster: Mapping[str, str]
    expected_revision: int
    lane = Lane.ROSTER


@dataclass(frozen=True, slots=True)
class PutSync:
    """Write who may be elected without losing an acknowledged commit."""

    electorate: SyncState
    expected_revision: int
    lane = Lane.SYNC


@dataclass(frozen=True, slots=True)
class Exit:
    """End this agent process with `code` (0: in order, 75: to be replaced)."""

    code: int
    lane = Lane.PROCESS


Action = (
    InitDb
    | Clone
    | Rewind
    | StartPrimary
    | StartStandby
    | CheckHistory
    | StopServer
    | HandOverStop
    | Fence
    | ExamineCrash
    | PutDown
    | Promote
    | Follow
    | RestartServer
    | Reinitialize
    | Checkpoint
    | EnsureSlots
    | SetSync
    | EnsureSentry
    | ApplyConfig
    | GrantLease
    | TakeInitialize
    | FinishInitialize
    | TakeLeader
    | ReattachLeader
    | RetakeLeader
    | AskPeers
    | ReleaseLeader
    | PutOffer
    | WithdrawOffer
    | CastBallot
    | ClearRequest
    | PutMember
    | PutStatus
    | PutRecord
    | PutHistory
    | PutRoster
    | PutSync
    | Exit
)


GIVING_AWAY = (PutOffer, ReleaseLeader)
"""Actions after which somebody else may lead."""
