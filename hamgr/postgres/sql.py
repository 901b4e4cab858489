"""SQL on the local server over one persistent superuser connection, with a deadline on every statement."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow, tuple_row

from hamgr.postgres.config import ServerConfig
from hamgr.postgres.errors import ServerBroken, ServerRefused, ServerUnavailable

T = TypeVar("T")
Connection = psycopg.AsyncConnection[TupleRow]

DATABASE = "postgres"
CONNECT_S = 2.0
STATEMENT_S = 2.0

PINNED = {
    "search_path": "pg_catalog",
    # Our own commits must not wait for standbys: a missing one is no illness of this server.
    "synchronous_commit": "local",
    "lock_timeout": "1000",
    # A standby answers no statement in serializable mode, which may be the server's default.
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_deferrable": "off",
    # Times come as text and are read as ISO 8601, whatever the server's own style is.
    "DateStyle": "ISO",
    "log_min_duration_statement": "-1",
}


class Sql:
    """A superuser's connection that is made when needed and thrown away when it fails. One statement at a time."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    async def query(
        self, statement: str, parameters: Sequence[Any] = (), *, timeout_s: float = STATEMENT_S
    ) -> list[TupleRow]:
        """The rows of one statement (empty if it returns none).

        Raises ServerUnavailable without an answer in time (the connection is thrown away, the effect is
        unknown), ServerRefused or ServerBroken with the server's words if it answers with an error.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._lock.acquire()
        except TimeoutError as error:
            raise ServerUnavailable(f"the SQL connection was busy for {timeout_s:g} s") from error
        try:
            connection = await self._connected()
            return await self._guarded(connection, _fetch(connection, statement, parameters), timeout_s)
        finally:
            self._lock.release()

    async def close(self) -> None:
        """No connection is left; the next query makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._config)
        return self._connection

    async def _guarded(self, connection: Connection, work: Awaitable[T], timeout_s: float) -> T:
        try:
            return await with_deadline(connection, work, timeout_s)
        except (ServerUnavailable, asyncio.CancelledError):
            await self._discard(connection)
            raise

    async def _discard(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
        await connection.close()


async def connect(
    config: ServerConfig, *, timeout_s: float = CONNECT_S, replication: bool = False, database: str = DATABASE
) -> Connection:
    """A fresh superuser connection to the local server, search_path pinned, in autocommit.

    Raises ServerUnavailable if the server does not answer (in time), ServerBroken if it does not let us in.
    """
    pinned = {**PINNED, "statement_timeout": "60000"}
    return await open_connection(
        timeout_s,
        host=config.local_host,
        port=config.port,
        user=config.superuser.username,
        password=config.superuser.password or None,
        dbname=None if replication else database,
        replication="true" if replication else None,
        options=None if replication else " ".join(f"-c {k}={v}" for k, v in pinned.items()),
        application_name="hamgr",
        **({} if config.use_unix_socket else dict(config.superuser.options)),
    )


async def open_connection(timeout_s: float, **fields: Any) -> Connection:
    """A connection in autocommit. Errors as `connect`."""
    # A replication connection has no database whose encoding it could take: text would come as bytes.
    given = {key: value for key, value in {"client_encoding": "UTF8", **fields}.items() if value is not None}
    try:
        async with asyncio.timeout(timeout_s):
            return await psycopg.AsyncConnection.connect(autocommit=True, row_factory=tuple_row, **given)
    except TimeoutError as error:
        raise ServerUnavailable(f"no connection within {timeout_s:g} s") from error
    except (psycopg.OperationalError, UnicodeError) as error:
        # The latter is said of a name that no host can have.
        raise _connection_error(error) from error


def _connection_error(error: Exception) -> ServerBroken | ServerUnavailable:
    text = " ".join(str(error).split())
    refusals = (
        "password authentication failed",
        "no pg_hba.conf entry",
        "Peer authentication failed",
        "does not exist",
    )
    if any(words in text for words in refusals) and "No such file" not in text:
        return ServerBroken(text, hint="check postgresql.authentication and pg_hba")
    return ServerUnavailable(text)


async def with_deadline(connection: Connection, work: Awaitable[T], timeout_s: float) -> T:
    """The result of `work` on that connection, which is unusable after ServerUnavailable.

    psycopg answers a cancellation by waiting for the server, for ever if that is frozen. So the task is never
    cancelled: its socket is shut down, and it ends by itself with a connection error.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        await _abort(connection, task)
        raise
    if not done:
        await _abort(connection, task)
        raise ServerUnavailable(f"no answer to SQL within {timeout_s:g} s")
    try:
        return task.result()
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if connection.closed or connection.broken:
            raise ServerUnavailable(" ".join(str(error).split())) from error
        raise ServerRefused(" ".join(str(error).split())) from error
    except psycopg.Error as error:
        raise ServerRefused(" ".join(str(error).split())) from error


async def _abort(connection: Connection, task: asyncio.Future[T]) -> None:
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(asyncio.CancelledError, psycopg.Error):
        await asyncio.wait({task}, timeout=1.0)
        if task.done() and not task.cancelled():
            task.exception()


async def _fetch(connection: Connection, statement: str, parameters: Sequence[Any]) -> list[TupleRow]:
    cursor = await connection.execute(statement.encode(), parameters or None)
    return await cursor.fetchall() if cursor.description else []
