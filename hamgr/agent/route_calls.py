"""Actions on pools and load balancers. Whatever fails is a sentence for log and record, and in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from hamgr.agent.server_calls import NOT_ENTITLED, scene_of
from hamgr.agent.world import World
from hamgr.core import actions
from hamgr.core.result import Outcome, Result
from hamgr.core.route_outcomes import RouteNotes
from hamgr.routing import haproxy, pgbouncer, targets
from hamgr.routing.errors import RouteError
from hamgr.routing.pgbouncer import Pool
from hamgr.routing.session import session


async def hold_pools(world: World, _action: actions.HoldPools) -> Outcome:
    """A pause that comes too late, because this process stood still for a while, is undone: nobody else would."""
    if not _leads_on(world):
        return NOT_ENTITLED
    pools = world.front.pools
    world.front.forget_releases()
    ended = await _each(pgbouncer.hold(pool) for pool in pools)
    if not _leads_on(world):
        await _each(_resumed(pool) for pool in pools)
        return NOT_ENTITLED
    return _outcome(ended, f"{len(pools) - len(_problems(ended))} of {len(pools)} pools held")


def _leads_on(world: World) -> bool:
    """Whoever leads next may have released the pools already, and does so once."""
    scene = scene_of(world)
    return scene.leads and scene.is_settled


async def _resumed(pool: Pool) -> None:
    async with session(pool.fields) as console:
        await pgbouncer.resume(pool, console)


async def release_pools(world: World, action: actions.ReleasePools) -> Outcome:
    """When it is tried again, for a pool that failed, those that went well are left alone."""
    front = world.front
    due = front.not_released_since(action.verified_at)
    ended = await _each(front.release(pool, action.verified_at) for pool in due)
    if not _problems(ended):
        await front.look_at_settings()
    return _outcome(ended, "")


async def push_route(world: World, action: actions.PushRoute) -> Outcome:
    if not scene_of(world).leads:
        # The host stood still since that was decided: another one may be marked up, rightly.
        return NOT_ENTITLED
    balancers = world.front.balancers
    ended = await _each(haproxy.push(balancer, world.me, action.others) for balancer in balancers)
    return _outcome(ended, "", confirmed=len(balancers) - len(_problems(ended)))


async def point_pools(world: World, action: actions.PointPools) -> Outcome:
    host, port = action.target.host, action.target.port
    pools = [(pool, pool.target_file) for pool in world.front.pools]
    ended = await _each(targets.point(pool, path, host, port) for pool, path in pools if path is not None)
    return _outcome(ended, f"to {host}:{port}")


Ended = list[str | RouteError]
"""Of several calls: each a remark for the record, empty where there is none, or why it failed."""


async def _each(calls: Iterable[Awaitable[str | None]]) -> Ended:
    """All at once."""
    return list(await asyncio.gather(*(_caught(call) for call in calls)))


async def _caught(call: Awaitable[str | None]) -> str | RouteError:
    try:
        return await call or ""
    except RouteError as error:
        return error


def _problems(ended: Ended) -> list[RouteError]:
    return [each for each in ended if isinstance(each, RouteError)]


def _outcome(ended: Ended, text: str, confirmed: int = 0) -> Outcome:
    lines = tuple(str(each) for each in ended if str(each))
    notes = RouteNotes(lines, confirmed)
    if _problems(ended):
        return Outcome(Result.FAILED, "route", "; ".join(lines), notes)
    return Outcome(Result.DONE, text="; ".join(lines) or text, value=notes)


ROUTE_CALLS: dict[type, Callable[[World, Any], Awaitable[Outcome]]] = {
    actions.HoldPools: hold_pools,
    actions.ReleasePools: release_pools,
    actions.PushRoute: push_route,
    actions.PointPools: point_pools,
}
