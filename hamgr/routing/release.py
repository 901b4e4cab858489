"""A pool is let go at the new leader: not before its route leads to a primary, and after a moment all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hamgr.routing.errors import RouteError
from hamgr.routing.pgbouncer import Pool, resume, targets
from hamgr.routing.session import LoginRefused, Session, session

ROUTE_S = 1.0
"""How long a paused pool waits for its route. Its clients wait for as long."""

FIRST_ATTEMPT_S = 0.15
"""A load balancer that has no server for us may hold a connection for long; a busy server takes long to let one in. So
each attempt may take twice as long as the one before.
"""

POLL_S = 0.01
LOOPBACK = ("", "127.0.0.1", "::1", "localhost")
"""Names for whatever host one is on; empty: a Unix socket."""


@dataclass(frozen=True, slots=True)
class OwnServer:
    """The server of this member: where others reach it, and how this agent logs into it or any other of the cluster."""

    host: str
    port: int
    login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Parameters of libpq without host and port."""


async def release(pool: Pool, own: OwnServer) -> str:
    """No client of the pool is kept waiting. What the record should say of it; empty: nothing worth telling.

    Raises RouteError if it is not known to be so.
    """
    try:
        async with session(pool.fields) as console:
            missing = await _wait_for_route(pool, console, own)
            was_paused = await resume(pool, console)
    except RouteError as error:
        raise RouteError(f"{pool} was not released: {error}") from error
    return f"{pool} was resumed although {missing}" if was_paused and missing else ""


async def _wait_for_route(pool: Pool, console: Session, own: OwnServer) -> str:
    """Empty as soon as every database of the pool leads to a primary; what is missing for that after ROUTE_S.

    Where it leads is asked again and again: a target file may be rewritten meanwhile.
    """
    loop = asyncio.get_running_loop()
    give_up_at, attempt_s = loop.time() + ROUTE_S, FIRST_ATTEMPT_S
    while True:
        found, began_at = await targets(pool, console), loop.time()
        missing = await _missing(pool, found, own, max(FIRST_ATTEMPT_S, min(attempt_s, give_up_at - began_at)))
        if not missing or loop.time() >= give_up_at:
            return missing
        if loop.time() - began_at >= attempt_s:
            attempt_s *= 2
        await asyncio.sleep(POLL_S)


async def _missing(pool: Pool, found: frozenset[tuple[str, int]], own: OwnServer, attempt_s: float) -> str:
    """What keeps the first of these addresses that does not lead to a primary from it; empty: all do."""
    is_here = pool.host.startswith("/") or pool.host in (*LOOPBACK, own.host)
    for host, port in sorted(found):
        if (host, port) == (own.host, own.port) or (host in LOOPBACK and is_here and port == own.port):
            continue
        if host in LOOPBACK and not is_here:
            return f"it leads to port {port} of its own host, which cannot be seen from here"
        why = await _why_no_primary(host or "127.0.0.1", port, own, attempt_s)
        if why:
            return why
    return ""


async def _why_no_primary(host: str, port: int, own: OwnServer, attempt_s: float) -> str:
    """Empty if a server that is out of recovery answers there. In a cluster only the leader's is."""
    fields = {**own.login, "host": host, "port": port}
    try:
        async with asyncio.timeout(attempt_s), session(fields, attempt_s) as there:
            rows = await there.ask("SELECT pg_catalog.pg_is_in_recovery() AS recovers", None)
    except TimeoutError:
        return f"{host}:{port}, where it leads, does not answer"
    except LoginRefused as error:
        return f"{host}:{port}, where it leads, does not let hamgr in to see whether it is a primary: {error}"
    except RouteError as error:
        return f"{host}:{port}, where it leads, is no primary: {error}"
    return "" if rows and rows[0]["recovers"] == "f" else f"{host}:{port}, where it leads, is a replica"
