"""etcd for asyncio: transactions, leases and watches over all its endpoints."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from hamgr.dcs import stream, wire
from hamgr.dcs.connection import Connections, Kind
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.errors import StoreRefused
from hamgr.dcs.messages import answer_of, txn_request
from hamgr.dcs.ops import Answer, Changes, Gap, Grant, Interrupted, Txn


class EtcdClient:
    """Must be made and used in one event loop; `close` ends its connections."""

    def __init__(self, config: EtcdConfig) -> None:
        self.connections = Connections(config)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def use(self, config: EtcdConfig) -> None:
        """New calls go by this configuration, with certificate files read afresh."""
        self.connections.use(config)

    async def close(self) -> None:
        """Ends all connections; calls under way fail."""
        await self.connections.close()

    async def txn(self, txn: Txn, *, resend: bool = False, budget_s: float | None = None) -> Answer:
        """Carry out a transaction; linearizable, also where it only reads.

        `resend`: carrying it out twice does no harm. Raises StoreUnavailable (nothing was changed),
        OutcomeUnknown (only if it changes something), LeaseExpired, StoreRefused.
        """
        kind = Kind.READ if txn.is_read else Kind.REPEATABLE if resend else Kind.ONCE
        return answer_of(await self.connections.call(wire.TXN, txn_request(txn), kind, budget_s))

    async def grant_lease(self, ttl_s: float, budget_s: float | None = None) -> Grant:
        """A new lease of at least `ttl_s`, rounded up to seconds. A lost answer leaves one that nobody renews."""
        request = wire.LeaseGrantRequest(TTL=math.ceil(ttl_s))
        answer = await self.connections.call(wire.LEASE_GRANT, request, Kind.READ, budget_s)
        if answer.error:
            raise StoreRefused(f"etcd: {answer.error}")
        return Grant(answer.ID, float(answer.TTL))

    async def revoke_lease(self, lease_id: int, budget_s: float | None = None) -> None:
        """End the lease and delete its keys. Raises LeaseExpired when it does not exist (any more)."""
        request = wire.LeaseRevokeRequest(ID=lease_id)
        await self.connections.call(wire.LEASE_REVOKE, request, Kind.REPEATABLE, budget_s)

    def watch_prefix(
        self, prefix: str, after_revision: int, idle_s: float
    ) -> AsyncGenerator[Changes | Interrupted | Gap, None]:
        """All changes below `prefix` after that revision; see hamgr.dcs.stream."""
        return stream.watch_prefix(self.connections, prefix, after_revision, idle_s)
