"""Another member's server, asked over the replication protocol: who it is, where it is, its history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import generators, pq
from psycopg.rows import TupleRow

from hamgr.core.actions import Upstream
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import lineage, sql
from hamgr.postgres.config import Credentials, ServerConfig
from hamgr.postgres.errors import ServerRefused, ServerUnavailable, WalGone

POLL_S = 0.05

WAL_MESSAGE = b"w"
WAL_MESSAGE_HEADER = 25
"""Bytes before the WAL in such a message: its kind, where the WAL begins, where it ends on the server, the time."""


@dataclass(frozen=True, slots=True)
class Source:
    """What another server says of itself."""

    system_identifier: str
    position: lineage.Position
    history: lineage.History


async def ask(config: ServerConfig, upstream: Upstream, *, timeout_s: float = 3.0) -> Source:
    """Identity, position and history of `upstream`. Raises ServerUnavailable or ServerBroken (not let in)."""
    connection = await _connect(config, upstream, config.replication, timeout_s, replication="true")
    async with connection:
        identifier, timeline, lsn = await _identify(connection, timeout_s)
        history: lineage.History = ()
        if timeline > 1:
            content = (await _rows(connection, f"TIMELINE_HISTORY {timeline}", timeout_s))[0][1]
            history = lineage.timeline_history(_text(content))
    return Source(identifier, lineage.Position(timeline, lsn), history)


async def identify_local(config: ServerConfig, *, timeout_s: float = 2.0) -> lineage.Position:
    """Timeline being replayed and the end of what was received, of our own running server."""
    connection = await sql.connect(config, timeout_s=timeout_s, replication=True)
    async with connection:
        _, timeline, lsn = await _identify(connection, timeout_s)
    return lineage.Position(timeline, lsn)


async def wait_until_checkpointed(
    config: ServerConfig, upstream: Upstream, timeline: Timeline, *, timeout_s: float
) -> None:
    """The source's control file knows its timeline, so that pg_rewind (before 16) sees that it was promoted.

    Raises ServerUnavailable if no checkpoint came in time.
    """
    deadline = time.monotonic() + timeout_s
    connection = await _connect(config, upstream, config.rewind_role, timeout_s, dbname=sql.DATABASE)
    async with connection:
        while True:
            rows = await _rows(connection, "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()", 2.0)
            if rows[0][0] >= timeline:
                return
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"no checkpoint on {upstream.host} since its promotion")
            await asyncio.sleep(POLL_S)


async def sent_wal(
    config: ServerConfig, upstream: Upstream, start: lineage.Position, length: int, *, timeout_s: float = 3.0
) -> bytes:
    """The first `length` bytes that `upstream` sends to a replica which asks for WAL from `start`; it must have them.

    What becomes of the files of an older timeline (taken over by the next one, renamed, removed) is its own affair.
    Raises WalGone where it has removed what is asked for, ServerError if it lets nobody in or does not answer in time.
    Source: PostgreSQL's manual, Streaming Replication Protocol.
    """
    connection = await _connect(config, upstream, config.replication, timeout_s, replication="true")
    try:
        return await sql.with_deadline(connection, _first_sent(connection, start, length), timeout_s)
    finally:
        await connection.close()


async def _first_sent(connection: sql.Connection, start: lineage.Position, length: int) -> bytes:
    """psycopg has no cursor for replication: its generators read the messages, of which only WAL ('w') counts."""
    pgconn = connection.pgconn
    pgconn.send_query(f"START_REPLICATION PHYSICAL {start.lsn} TIMELINE {start.timeline}".encode())
    received = b""
    try:
        begun = (await connection.wait(generators.execute(pgconn)))[0]
        if begun.status != pq.ExecStatus.COPY_BOTH:
            raise psycopg.errors.error_from_result(begun)
        while len(received) < length:
            message = await connection.wait(generators.copy_from(pgconn))
            if not isinstance(message, memoryview):
                raise ServerRefused(f"the stream from {start.lsn} on timeline {start.timeline} ends too soon")
            if message[:1] == WAL_MESSAGE:
                received += message[WAL_MESSAGE_HEADER:]
    except psycopg.errors.UndefinedFile as error:
        raise WalGone(
            f"needs WAL from {start.lsn} on, which {connection.info.host} has removed already",
            hint="clone it anew; use_slots or a greater wal_keep_size keeps WAL for members that are away",
        ) from error
    return received[:length]


async def tablespaces(config: ServerConfig, upstream: Upstream, *, timeout_s: float = 3.0) -> list[str]:
    """Where `upstream` has tablespaces outside of its data directory. Asked as the role of pg_rewind."""
    listing = """
    SELECT location FROM pg_catalog.pg_tablespace, pg_catalog.pg_tablespace_location(oid) AS location
     WHERE location LIKE '/%'"""
    connection = await _connect(config, upstream, config.rewind_role, timeout_s, dbname=sql.DATABASE)
    async with connection:
        return [row[0] for row in await _rows(connection, listing, timeout_s)]


async def _connect(
    config: ServerConfig, upstream: Upstream, role: Credentials, timeout_s: float, **more: str
) -> sql.Connection:
    fields = {**role.options, "application_name": f"{config.name} hamgr", "gssencmode": "disable", **more}
    return await sql.open_connection(
        timeout_s,
        host=upstream.host,
        port=upstream.port,
        user=role.username,
        password=role.password or None,
        **fields,
    )


async def _identify(connection: sql.Connection, timeout_s: float) -> tuple[str, Timeline, Lsn]:
    identifier, timeline, lsn = (await _rows(connection, "IDENTIFY_SYSTEM", timeout_s))[0][:3]
    return _text(identifier), Timeline(int(timeline)), Lsn.parse(_text(lsn))


def _text(value: str | bytes) -> str:
    """Replication connections name no client encoding, so psycopg leaves text as bytes."""
    return value if isinstance(value, str) else value.decode()


async def _rows(connection: sql.Connection, command: str, timeout_s: float) -> Sequence[TupleRow]:
    async def fetched() -> list[TupleRow]:
        return await (await connection.execute(command.encode())).fetchall()

    return await sql.with_deadline(connection, fetched(), timeout_s)
