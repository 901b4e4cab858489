"""The sentry: a session of the server itself that kills the server before its deadline when nobody else is left to.

It is a backend that runs one DO block for ever and needs no client: it goes on when agent and guard are dead. It looks
at the guard's page and at the boot clock ten times a second, and ends the whole server when the page is armed and the
deadline is SENTRY_BUDGET_S away; the guard has acted earlier, if there was one. Why so: docs/adr/0009-sentry.md.

A snapshot is held for at most PAUSE_S at a time. On a standby that can hold replay back for as long: start it there
only when it may soon be promoted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psycopg
from psycopg.pq import ExecStatus

from hamgr.core.policy import SENTRY_BUDGET_S
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.errors import ServerBroken, ServerRefused, ServerUnavailable
from hamgr.postgres.sql import Connection, Sql, connect, with_deadline

APPLICATION = "hamgr sentry"
PAUSE_S = 0.1
USELESS_S = 30.0
"""After so long on a standby that was not promoted after all it ends."""
START_S = 5.0
CLOCK_TOLERANCE_S = 0.1
STUCK_S = 2.0

KILL_SERVER = """
trap "" HUP PIPE
exec 3< /proc/$PPID/exe
is_ours() { [ /proc/$1/exe -ef /proc/$$/fd/3 ] && [ /proc/$1/cwd -ef . ]; }
read -r stat < /proc/$PPID/stat
set -- ${stat##*) }
is_ours $2 && kill -s STOP $2
quiet=0 rounds=0
while [ $quiet -lt 2 ] && [ $rounds -lt 50 ]; do
  quiet=$((quiet + 1)) rounds=$((rounds + 1))
  for each in /proc/[0-9]*; do
    pid=${each#/proc/}
    [ $pid = $PPID ] || ! is_ours $pid && continue
    kill -s KILL -- -$pid
    kill -s KILL $pid && quiet=0
  done
done
is_ours $PPID && kill -s KILL $PPID
"""
"""Runs in the data directory as a child of the sentry ($PPID), which therefore goes last; it goes on should that die
first. The postmaster is stopped before anything else: it must neither fork nor end the sentry for the others' crash.
Then every process of this program in this directory is killed, with its process group (an archiver's shell), until two
looks find none. Bounded, since a process stuck in the kernel stays visible; it runs no more user code. No fork.
"""

WATCH = """
DO $sentry$
DECLARE
    page bytea;
    left_s float8;
    is_due bool := false;
    useless_looks int := 0;
BEGIN
    IF NOT pg_try_advisory_lock(%(lock)s) THEN
        RETURN;
    END IF;
    LOOP
        COMMIT;
        page := pg_read_binary_file('%(path)s', 0, %(size)s, true);
        EXIT WHEN page IS NULL OR substr(page, 1, %(header_size)s) <> '\\x%(header)s';
        left_s := NULL;
        IF get_byte(page, %(arming_at)s) %% 2 = 1
            AND substr(page, %(arming_at)s + 1, 8) <> substr(page, %(fenced_arming_at)s + 1, 8)
            AND substr(page, %(deadline_at)s + 1, 8) <> '\\x0000000000000000'
        THEN
            left_s := (%(deadline_ns)s) / 1e9 - %(budget_s)s
                - split_part(pg_read_file('/proc/uptime', 0, 40), ' ', 1)::float8;
        END IF;
        IF is_due AND left_s <= 0 THEN
            BEGIN
                COPY (SELECT 1) TO PROGRAM '%(kill)s';
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END IF;
        is_due := coalesce(left_s <= 0, false);
        useless_looks := CASE WHEN left_s IS NULL AND pg_is_in_recovery() THEN useless_looks + 1 ELSE 0 END;
        EXIT WHEN useless_looks > %(useless_looks)s;
        BEGIN
            PERFORM pg_sleep(CASE WHEN is_due THEN 0 ELSE greatest(0.001, least(%(pause_s)s, left_s)) END);
        EXCEPTION WHEN query_canceled THEN
            NULL;
        END;
    END LOOP;
END
$sentry$
"""
"""COMMIT lets go of the snapshot. Due is what two looks found due, so that a torn read kills nobody. The sleep is on
the wall clock (pg_sleep, misc.c): one that a step of the clock made long is cancelled by `LOOK`, and goes on.
"""

LOCK = int.from_bytes(b"hamgrsen", "big")

UNBOUND = """
SELECT set_config(name, CASE WHEN name ~ '^(log|auto_explain)' THEN '-1' ELSE '0' END, false) FROM pg_settings
WHERE name IN ('statement_timeout', 'transaction_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
    'idle_session_timeout', 'client_connection_check_interval', 'log_min_duration_statement',
    'auto_explain.log_min_duration')
"""
"""No time limit of the cluster, the database or the role ends the session; some are known to newer versions only."""

LOOK = """
SELECT CASE WHEN abs(extract(epoch FROM clock_timestamp() - xact_start)) > %s THEN pg_cancel_backend(pid) END
FROM pg_stat_activity WHERE application_name = %s AND usename = current_user AND state = 'active'
"""

SLEEPS = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"


@dataclass(frozen=True, slots=True)
class WatchedPage:
    """The guard's page as a file of 8-byte little-endian words."""

    path: str
    """Absolute; the server's user can read it."""
    header: bytes
    """What the file begins with as long as it is the page of this boot."""
    arming_at: int
    """Byte offsets: a counter, odd while the server is bound by the deadline."""
    fenced_arming_at: int
    """The arming that was carried out already."""
    deadline_at: int
    """Nanoseconds on CLOCK_BOOTTIME, 0 = none."""


async def ensure_sentry(config: ServerConfig, sql: Sql, page: WatchedPage) -> bool:
    """One sentry watches that page from inside of the server; False: it did already. To be called again and again.

    Raises ServerUnavailable if the server does not answer in time, ServerRefused or ServerBroken if it cannot be.
    """
    if await sql.query(LOOK, (STUCK_S, APPLICATION)):
        return False
    connection = await connect(config)
    try:
        await with_deadline(connection, _prepare(connection), START_S)
        # Not awaited: the block has no end. The session does not need this connection, which is closed below.
        connection.pgconn.send_query(watch_statement(page).encode())
        await _wait_until_it_sleeps(connection, sql)
    except psycopg.Error as error:
        raise ServerUnavailable(f"no sentry: {error}") from error
    finally:
        await connection.close()
    return True


def watch_statement(page: WatchedPage) -> str:
    """The DO block for that page."""
    shifted = (f"(get_byte(page, {page.deadline_at + byte})::int8 << {8 * byte})" for byte in range(8))
    return WATCH % {
        "lock": LOCK,
        "pause_s": PAUSE_S,
        "useless_looks": int(USELESS_S / PAUSE_S),
        "budget_s": SENTRY_BUDGET_S,
        "path": page.path.replace("'", "''"),
        "size": max(page.arming_at, page.fenced_arming_at, page.deadline_at) + 8,
        "header_size": len(page.header),
        "header": page.header.hex(),
        "arming_at": page.arming_at,
        "fenced_arming_at": page.fenced_arming_at,
        "deadline_at": page.deadline_at,
        "deadline_ns": " | ".join(shifted),
        "kill": KILL_SERVER.replace("'", "''"),
    }


async def _prepare(connection: Connection) -> None:
    """The session has its name and no time limit, and its server sees the clock of the page's deadline."""
    await connection.execute("SELECT set_config('application_name', %s, false)", (APPLICATION,))
    await connection.execute(UNBOUND)
    earliest_s = time.clock_gettime(time.CLOCK_BOOTTIME) - CLOCK_TOLERANCE_S
    cursor = await connection.execute("SELECT split_part(pg_read_file('/proc/uptime', 0, 40), ' ', 1)::float8")
    row = await cursor.fetchone()
    latest_s = time.clock_gettime(time.CLOCK_BOOTTIME) + CLOCK_TOLERANCE_S
    if row is None or not earliest_s <= row[0] <= latest_s:
        raise ServerBroken(
            f"no sentry: /proc/uptime, as the server sees it, is not the boot clock ({row and row[0]} s)",
            hint="a container's own /proc/uptime (lxcfs) hides it; mount the host's",
        )


async def _wait_until_it_sleeps(connection: Connection, sql: Sql) -> None:
    """It has begun to watch. Raises ServerRefused if the block ended instead."""
    pgconn = connection.pgconn
    try:
        async with asyncio.timeout(START_S):
            while pgconn.flush() or not await sql.query(SLEEPS, (pgconn.backend_pid,)):
                pgconn.consume_input()
                if not pgconn.is_busy():
                    result = pgconn.get_result()
                    failed = result is not None and result.status == ExecStatus.FATAL_ERROR
                    text = (
                        result.get_error_message()
                        if result and failed
                        else "there is no such page, or another has its lock"
                    )
                    raise ServerRefused(f"no sentry: {text}")
                await asyncio.sleep(0.001)
    except TimeoutError as error:
        raise ServerUnavailable(f"no sentry within {START_S:g} s") from error
