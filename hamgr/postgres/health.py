"""Can the server still do what a primary must? Fresh connection, commit, write and fsync; each says what is wrong.

None of these has a deadline: whoever asks judges by the time that it takes, and a hung file system holds its thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from hamgr.postgres import sql
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.errors import ServerBroken, ServerRefused, ServerUnavailable
from hamgr.postgres.knock import CANNOT_CONNECT_NOW, knock
from hamgr.postgres.sql import Connection, Sql

PROBE_FILE = "hamgr.probe"
PROBE_BYTES = 4096
ROOM_BYTES = 1024 * 1024
SEGMENT_BYTES = 16 * 1024 * 1024
FOR_EVER_S = 86400.0
RETRY_S = 0.05

ASKED_FOR_AUTHENTICATION = ""
ORDINARY_REFUSALS = ("28", "3D", "53300", "55000")
"""How a server that is well turns us away: not let in, no such database, all connections taken, none allowed."""
OUT_OF_IDS = "54000"
"""Refuses new transaction ids to keep old ones apart. Every member's copy does: it is no illness of this one."""

COMMIT_OF_PRIMARY = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(true, 'hamgr', '')::text END
"""
"""A transaction that changes no table but has an id, so that its end is logged and flushed. NULL: not a primary."""


@dataclass(frozen=True, slots=True)
class Door:
    """How a server answered somebody who knocked. `connection` None: it had none to give, and may still be well."""

    connection: Connection | None = None
    problem: str = ""
    is_recovering: bool = False
    """It is starting, recovering from the crash of a backend, or shutting down."""


async def open_door(config: ServerConfig, patience_s: float) -> Door:
    """The server's answer to a fresh connection. Goes on as long as there is none.

    Refusals that a healthy server does not make are given `patience_s` to pass: a full process table may be a moment's.
    """
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            return Door(await sql.connect(config, timeout_s=FOR_EVER_S))
        except ServerBroken:
            return Door()
        except ServerUnavailable as error:
            words = str(error)
        try:
            code = await knock(config, sql.DATABASE)
        except (OSError, EOFError):
            code = None
        if code == CANNOT_CONNECT_NOW:
            return Door(is_recovering=True)
        if code == ASKED_FOR_AUTHENTICATION or (code is not None and code.startswith(ORDINARY_REFUSALS)):
            return Door()
        if code is not None and time.monotonic() > give_up_at:
            return Door(problem=words)
        await asyncio.sleep(RETRY_S)


async def commit(config: ServerConfig, persistent: Sql, door: Door) -> str | None:
    """What is wrong with a small commit that is flushed here; empty: nothing. None: it cannot be told now.

    Missing standbys do not matter. On the connection that the door gave, which is closed at the end; where all are
    taken on the one that is held anyway. A connection that is lost under it says nothing of commits: another is tried.
    """
    while True:
        try:
            if door.connection is None:
                rows = await persistent.query(COMMIT_OF_PRIMARY, timeout_s=FOR_EVER_S)
            else:
                rows = await sql.with_deadline(door.connection, _committed(door.connection), FOR_EVER_S)
            return "" if rows[0][0] is not None else None
        except ServerRefused as error:
            cause = error.__cause__
            is_of_all = isinstance(cause, psycopg.Error) and cause.sqlstate == OUT_OF_IDS
            return "" if is_of_all else str(error)
        except (ServerUnavailable, ServerBroken):
            if door.connection is None:
                return None
        finally:
            if door.connection is not None:
                await door.connection.close()
        await asyncio.sleep(RETRY_S)
        door = await open_door(config, RETRY_S)
        if door.is_recovering or door.problem:
            return None


async def _committed(connection: Connection) -> list[TupleRow]:
    return await (await connection.execute(COMMIT_OF_PRIMARY.encode())).fetchall()


def write_data_disk(config: ServerConfig) -> str | None:
    """What is wrong with the file system of the data directory; empty: nothing. Blocking."""
    try:
        # A directory that is being made anew must not find a file of ours in it.
        (config.data_dir / "PG_VERSION").stat()
        room_bytes = _room(config) if _holds_wal(config) else ROOM_BYTES
    except OSError as error:
        return str(error)
    return _write(config.data_dir, room_bytes)


def write_wal_disk(config: ServerConfig) -> str | None:
    """As `write_data_disk`, of the WAL's; None if that is the same file system. Blocking."""
    wal = config.data_dir / "pg_wal"
    try:
        if _holds_wal(config):
            return None
        room_bytes = _room(config)
    except OSError as error:
        return str(error)
    return _write(Path(os.path.realpath(wal)), room_bytes)


def _holds_wal(config: ServerConfig) -> bool:
    return (config.data_dir / "pg_wal").stat().st_dev == config.data_dir.stat().st_dev


def _room(config: ServerConfig) -> int:
    """What WAL needs: a primary goes on in its segment, a standby needs another one to be promoted."""
    return SEGMENT_BYTES if (config.data_dir / "standby.signal").exists() else ROOM_BYTES


def _write(directory: Path, room_bytes: int) -> str:
    """Written, flushed, and with room for more: a file that stands already would not notice a full disk."""
    try:
        descriptor = os.open(directory / PROBE_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _write_and_give_back(descriptor, room_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{directory}: {os.strerror(error.errno or 0)}"
    return ""


def _write_and_give_back(descriptor: int, room_bytes: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, room_bytes)
        os.pwrite(descriptor, os.urandom(8) * (PROBE_BYTES // 8), 0)
        os.fsync(descriptor)
    finally:
        os.ftruncate(descriptor, PROBE_BYTES)
