"""The store as the agent, the CLI and the REST server see it: one small interface.

Times in seconds. Every method may raise StoreUnavailable (no proper answer in time, nothing changed),
StoreRefused (etcd says no, for good) and, where it takes a lease, LeaseExpired.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hamgr.core.cluster import Ballot, ClusterView, HistoryLine, LeaderKey, Member, Request, Status, SyncState
from hamgr.core.result import Result
from hamgr.core.units import Instant, Term
from hamgr.dcs.ops import Gap, Interrupted
from hamgr.dcs.transactions import LeaderClaim

ViewChange = ClusterView | Interrupted | Gap
"""What a watch yields: a newer view; that it lost its stream and is resuming; or, last, that it missed something."""


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """A new lease. It lives for `ttl_s` from `sent_at` at least, the instant before it was asked for."""

    lease_id: int
    ttl_s: float
    sent_at: Instant


@dataclass(frozen=True, slots=True)
class TxnOutcome:
    """How a conditional change ended: DONE, REFUSED (a comparison did not hold) or UNKNOWN.

    `revision` is etcd's at the answer: the mod_revision of what was written when it was done at the first
    try. UNKNOWN may still take effect later. A refusal that follows a lost answer may, too, where what refused
    it can come back (an absent key): the view tells, and the change would be in force as decided.
    """

    result: Result
    revision: int = 0
    text: str = ""

    @property
    def is_done(self) -> bool:
        return self.result is Result.DONE


class Store(Protocol):
    """Keys of one cluster."""

    async def read(self) -> ClusterView:
        """All keys but the records, at one revision, linearizable."""
        ...

    def watch(self, from_revision: int, idle_s: float) -> AsyncIterator[ViewChange]:
        """Views newer than the last read, which must be of `from_revision`: call it right after. Ends with a Gap.

        `idle_s`: a stream that is silent for so long, though asked, is given up for another endpoint.
        """
        ...

    async def grant_lease(self, ttl_s: float) -> LeaseGrant: ...

    async def revoke_lease(self, lease_id: int) -> None: ...

    async def put_member(self, member: Member, lease_id: int) -> int:
        """Announce; returns the key's mod_revision."""
        ...

    async def put_ballot(self, ballot: Ballot, lease_id: int, leader_revision: int) -> Ballot | None:
        """Vote; returns the ballot with its mod_revision. None: refused, since the leader key was written meanwhile.

        `leader_revision` is that key's mod_revision, 0 where nobody holds it.
        """
        ...

    async def delete_ballot(self, name: str) -> None: ...

    async def put_status(self, status: Status, me: str) -> TxnOutcome: ...

    async def take_initialize(self, me: str, lease_id: int) -> TxnOutcome: ...

    async def finish_initialize(self, me: str, system_identifier: str, config: Mapping[str, Any]) -> TxnOutcome:
        """Enter the identifier for good, and `config` if there is none."""
        ...

    async def take_leader(self, claim: LeaderClaim) -> TxnOutcome: ...

    async def reattach_leader(self, me: str, old: LeaderKey, lease_id: int) -> TxnOutcome: ...

    async def retake_leader(self, me: str, lease_id: int, term_revision: int, roster_revision: int) -> TxnOutcome: ...

    async def release_leader(
        self, me: str, term: Term, leader_revision: int = 0, parting: Request | None = None
    ) -> TxnOutcome:
        """Give the key up, if it was not written since `leader_revision`; `parting` holds an offer, for the
        successor's record."""
        ...

    async def put_offer(self, me: str, request: Request, leader_revision: int = 0) -> TxnOutcome:
        """Write `request`, which holds an offer, over the request of `request.mod_revision` (0: none)."""
        ...

    async def withdraw_offer(self, me: str, lease_id: int, request_revision: int) -> TxnOutcome:
        """Take the offer back; the leader key is written afresh and the ballots go, so that nothing of it is left."""
        ...

    async def put_request(self, request: Request, expected_revision: int) -> TxnOutcome: ...

    async def clear_request(self, request_revision: int) -> TxnOutcome: ...

    async def put_config(self, values: Mapping[str, Any], expected_revision: int) -> TxnOutcome: ...

    async def put_history(self, me: str, lines: tuple[HistoryLine, ...], expected_revision: int) -> TxnOutcome: ...

    async def put_roster(self, me: str, roster: Mapping[str, str], expected_revision: int) -> TxnOutcome: ...

    async def put_sync(self, me: str, sync: SyncState, expected_revision: int) -> TxnOutcome: ...

    async def put_record(self, term: Term, record: Mapping[str, Any], keep: int = 50) -> None:
        """Write the record of that term; only the newest `keep` remain."""
        ...

    async def list_records(self, limit: int = 50) -> tuple[Mapping[str, Any], ...]:
        """Newest first; unreadable ones are left out."""
        ...

    async def delete_all(self) -> None:
        """Remove every key of the cluster."""
        ...

    async def close(self) -> None: ...
