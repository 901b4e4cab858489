"""What stands before the servers, as this member's file names it: pools and load balancers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hamgr.agent.journal import LOGGER
from hamgr.core.routes import Routes
from hamgr.core.units import Instant
from hamgr.routing import haproxy, pgbouncer
from hamgr.routing.errors import RouteError
from hamgr.routing.haproxy import Balancer
from hamgr.routing.pgbouncer import Pool
from hamgr.routing.release import OwnServer, release
from hamgr.routing.session import session

NOWHERE = OwnServer("", 0)


@dataclass(slots=True)
class Front:
    """Read afresh from the file by a reload, which makes another one."""

    pools: tuple[Pool, ...] = ()
    balancers: tuple[Balancer, ...] = ()
    own: OwnServer = NOWHERE
    _released: dict[str, Instant] = field(default_factory=dict)
    _looked_at: set[str] = field(default_factory=set)
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def routes(self) -> Routes:
        """As decisions know it."""
        has_targets = any(pool.target_file for pool in self.pools)
        return Routes(bool(self.pools), has_targets, bool(self.balancers))

    def not_released_since(self, verified_at: Instant) -> tuple[Pool, ...]:
        """The pools that were not released since that verification: one released may be paused by an operator since."""
        return tuple(pool for pool in self.pools if self._released.get(str(pool)) != verified_at)

    async def release(self, pool: Pool, verified_at: Instant) -> str:
        """As hamgr.routing.release has it, for that verification."""
        remark = await release(pool, self.own)
        self._released[str(pool)] = verified_at
        return remark

    def forget_releases(self) -> None:
        """All pools are to be released again: they are about to be held."""
        self._released.clear()

    def leave_soon(self, me: str) -> None:
        """The load balancers are told, beside what goes on, that the server here ends. Nothing depends on it."""
        for balancer in self.balancers:
            task = asyncio.create_task(_leave(balancer, me))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def look_at_settings(self) -> None:
        """Of each pool, once: what in its settings would cost clients more than the change of leader does."""
        for pool in self.pools:
            if str(pool) in self._looked_at:
                continue
            try:
                async with session(pool.fields) as console:
                    warning = await pgbouncer.slow_retry(console)
            except RouteError as error:
                LOGGER.debug("%s: its settings were not seen: %s", pool, error)
                continue
            self._looked_at.add(str(pool))
            if warning:
                LOGGER.warning("%s: %s", pool, warning)


async def _leave(balancer: Balancer, me: str) -> None:
    try:
        await haproxy.leave(balancer, me)
    except RouteError as error:
        LOGGER.debug("%s", error)
