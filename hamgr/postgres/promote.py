"""Promotion: asked for without its wait, polled at a millisecond, verified by a commit."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from hamgr.core.units import Lsn, Timeline
from hamgr.postgres.errors import ServerError, ServerRefused, ServerUnavailable
from hamgr.postgres.sql import Sql

POLL_S = 0.001

WHERE = """
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int,
       current_setting('default_transaction_read_only'), pg_current_wal_insert_lsn()::text
"""
COMMIT = "SELECT pg_logical_emit_message(true, 'hamgr', '')::text"
"""A transactional message has a transaction id, so that its commit is logged and flushed; it changes no table."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """The new timeline, and where it left the old one (0 where that could not be read)."""

    timeline: Timeline
    lsn: Lsn
    promoted_at: float
    """When it was seen to be out of recovery: seconds on CLOCK_BOOTTIME."""


async def promote(sql: Sql, timeout_s: float, *, old_timeline: Timeline) -> Promotion:
    """The server is out of recovery on a new timeline and has committed.

    Raises ServerUnavailable if that is not so after `timeout_s` (it may still come), ServerRefused if it cannot.
    """
    deadline = time.monotonic() + timeout_s
    await sql.query("SELECT pg_promote(false)", timeout_s=timeout_s)
    # The server has no event for the end of recovery that SQL could wait for.
    while await _in_recovery(sql, _left(deadline)):  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
    promoted = await verify(sql, _left(deadline))
    if promoted.timeline <= old_timeline:
        raise ServerRefused(f"promoted, but the timeline is {promoted.timeline} and was {old_timeline}")
    return promoted


async def verify(sql: Sql, timeout_s: float) -> Promotion:
    """The primary that answers has committed just now. Raises as `promote`."""
    promoted_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    deadline = time.monotonic() + timeout_s
    await sql.query(COMMIT, timeout_s=timeout_s)
    timeline, read_only, _ = (await sql.query(WHERE, timeout_s=_left(deadline)))[0]
    if read_only == "on":
        raise ServerRefused("a primary, but default_transaction_read_only is on", hint="set it to off")
    return Promotion(Timeline(timeline), await _switch_point(sql, timeline), promoted_at)


async def _in_recovery(sql: Sql, timeout_s: float) -> bool:
    return bool((await sql.query("SELECT pg_is_in_recovery()", timeout_s=timeout_s))[0][0])


async def _switch_point(sql: Sql, timeline: int) -> Lsn:
    """Last line of the new history file: parent timeline, position, reason."""
    try:
        rows = await sql.query("SELECT pg_read_file(%s)", (f"pg_wal/{timeline:08X}.history",))
        return Lsn.parse(rows[0][0].strip().splitlines()[-1].split("\t")[1])
    except (ServerError, ValueError, IndexError):
        return Lsn(0)


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise ServerUnavailable("the promotion did not end in time")
    return left_s
