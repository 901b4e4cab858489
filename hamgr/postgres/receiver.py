"""The WAL receiver of a replica: stopped for good, so that nobody can acknowledge through it any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from hamgr.postgres.process import start_ticks
from hamgr.postgres.sql import Sql

STOP_S = 2.0
POLL_S = 0.002
STILL_LOOKS = 5
"""Looks in a row without one: a receiver that was asked for just before the reload may be on its way."""

NO_UPSTREAM = "SELECT current_setting('primary_conninfo') = ''"
RECEIVERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'"
"""Also one that is connecting still, which pg_stat_wal_receiver does not show."""


async def stop(sql: Sql, forget_upstream: Callable[[], Awaitable[object]]) -> None:
    """No WAL receiver process is left, and none will be started before the server is given an upstream again.

    `forget_upstream` has written an empty primary_conninfo and reloaded. The startup process, which would end the
    receiver, may be held up by a query that conflicts with recovery; so it is told directly, as the startup process
    tells it. What it received is flushed as it ends. Raises TimeoutError, or the errors of `sql`.
    Source: src/backend/replication/walreceiver.c, WalRcvDie; walreceiverfuncs.c, ShutdownWalRcv.
    """
    async with asyncio.timeout(STOP_S):
        await forget_upstream()
        # Every process has been told to read the configuration before our own session shows that it has.
        while not (await sql.query(NO_UPSTREAM))[0][0]:  # noqa: ASYNC110 -- the server has no event for it
            await asyncio.sleep(POLL_S)
        told: set[int] = set()
        looks = 0
        while looks < STILL_LOOKS:
            present = {pid for (pid,) in await sql.query(RECEIVERS)}
            for pid in present - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            told |= present
            looks = 0 if any(start_ticks(pid) is not None for pid in told) else looks + 1
            await asyncio.sleep(POLL_S)
