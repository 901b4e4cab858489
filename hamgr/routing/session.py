"""Short sessions by PostgreSQL's protocol, on a pooler's admin console or through a route, each step with a deadline.

By libpq's simple query protocol alone: PgBouncer's console knows no other. Source: its manual, "Admin console".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import pq

from hamgr.routing.errors import RouteError

CONNECT_S = 1.0
ANSWER_S = 1.0
SHOWN_CHARACTERS = 200

Row = dict[str, str | None]


class Refused(RouteError):
    """The other side answered with an error."""


class NoSession(RouteError):
    """There is none: nothing was asked, and nothing has changed on the other side."""


class LoginRefused(NoSession):
    """The other side answers, and does not let us in."""


@asynccontextmanager
async def session(fields: Mapping[str, Any], timeout_s: float = CONNECT_S) -> AsyncIterator[Session]:
    """A session for as long as the block lasts. `fields`: libpq's parameters.

    Raises LoginRefused, or NoSession if there is none in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            connection = await psycopg.AsyncConnection.connect(autocommit=True, **fields)
    except TimeoutError:
        raise NoSession(f"no connection within {timeout_s:g} s") from None
    except (psycopg.Error, OSError, UnicodeError) as error:
        text = _one_line(str(error))
        raise (LoginRefused(text) if "FATAL" in text else NoSession(text)) from error
    try:
        yield Session(connection.pgconn)
    finally:
        # At once and without a word to the other side, which may be frozen.
        await connection.close()


class Session:
    """One statement at a time. After anything but an answer it is good for nothing more."""

    def __init__(self, connection: pq.abc.PGconn) -> None:
        self._connection = connection

    async def ask(self, statement: str, timeout_s: float | None = ANSWER_S) -> list[Row]:
        """The rows of the answer, by column, as text. None: without a deadline; the caller has one.

        Raises Refused with the other side's words, RouteError where none came (in time).
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(statement)
        except TimeoutError:
            raise RouteError(f"no answer to {statement} in time") from None
        except psycopg.Error as error:
            raise RouteError(f"{statement}: {_one_line(str(error))}") from error

    async def _ask(self, statement: str) -> list[Row]:
        connection = self._connection
        connection.send_query(statement.encode())
        while connection.flush():
            await self._wait(writing=True)
        rows: list[Row] = []
        refusal = ""
        while True:
            while connection.is_busy():
                await self._wait(writing=False)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.FATAL_ERROR:
                refusal = _words_of(result)
            rows += _rows_of(result)
        if refusal:
            raise Refused(refusal)
        return rows

    async def _wait(self, *, writing: bool) -> None:
        """Until the socket can be read (or written)."""
        loop, number = asyncio.get_running_loop(), self._connection.socket
        is_ready = asyncio.Event()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(number, is_ready.set)
        try:
            await is_ready.wait()
        finally:
            remove(number)


def _rows_of(result: pq.abc.PGresult) -> list[Row]:
    names = [(result.fname(at) or b"").decode() for at in range(result.nfields)]
    return [{name: _text(result.get_value(row, at)) for at, name in enumerate(names)} for row in range(result.ntuples)]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _words_of(result: pq.abc.PGresult) -> str:
    return _one_line((result.error_message or b"").decode(errors="replace")).removeprefix("ERROR: ")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:SHOWN_CHARACTERS]
