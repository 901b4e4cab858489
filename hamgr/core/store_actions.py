"""Actions on the store and, where it is gone, on the other members: frozen values, each in one lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hamgr.core.cluster import HistoryLine, LeaderKey, Member, Offer, Status, SyncState
from hamgr.core.lanes import Lane
from hamgr.core.pipeline import Record
from hamgr.core.server import NO_BIRTH, Birth
from hamgr.core.units import Lsn, Term


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
    roster_revision: int = 0
    """The roster named this member at this revision; 0: there was none."""
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
    ttl_s: float
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
class MoveLeader:
    """The leader key that this member holds hangs on a new lease of `ttl_s`; the term stays.

    `lease_id`: that of an earlier try whose end is not known, which is tried again; 0: one is granted.
    """

    old: LeaderKey
    ttl_s: float
    lease_id: int = 0
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
    leader_revision: int = 0
    """mod_revision of the leader key of whose offer it is a vote, 0: nobody holds it. With another one there it is
    refused: a vote that comes after its offer was taken back would count in the next election.
    """
    offered: Birth = NO_BIRTH
    """The timeline that is offered, where this member's server was following the server that is offered: then it is
    its timeline, too, if it has that number.
    """
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
