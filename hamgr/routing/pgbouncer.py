"""Pools in PgBouncer, by its admin console: held while the lead is handed over, released at the new leader.

Facts of PgBouncer that this rests on (1.18, its manual and docs/adr/0015):
- PAUSE answers once no server connection is left; it stays in force when its console session ends.
- A server connection that fails makes the pool wait `server_login_retry` before the next one, whatever the reason: so
  nothing is resumed before its route leads to a primary, and nothing paused while a server connection is being made.
- PAUSE of a single database goes on making server connections for new clients: all of them are paused unless the file
  names some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamgr.routing.errors import RouteError
from hamgr.routing.session import NoSession, Refused, Row, Session, session

CONSOLE = "pgbouncer"
"""The virtual database of the admin console."""

ALL = ("",)
"""Stands for all databases at once."""

NOBODY_WAITS = ("not paused", "no such database")
"""What it says to RESUME where no client of that database is kept waiting."""

POLL_S = 0.005
LOGINS_S = 0.1
"""How long a pause waits for server connections that are being made."""

LONGEST_LOGIN_RETRY_S = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """One PgBouncer, by its admin console."""

    host: str
    """Or the directory of its Unix socket."""
    port: int
    username: str
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further parameters of libpq: sslmode, sslrootcert, ..."""
    databases: tuple[str, ...] = ()
    """As PgBouncer names them; empty: all of them."""
    pause_timeout_s: float = 2.0
    target_file: Path | None = None
    target_options: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"pool {host}:{self.port}"

    @property
    def fields(self) -> dict[str, Any]:
        """libpq's parameters for the console."""
        given = {
            "host": self.host,
            "port": self.port,
            "user": self.username,
            "password": self.password or None,
            "dbname": CONSOLE,
            "application_name": "hamgr",
            **self.options,
        }
        return {key: value for key, value in given.items() if value is not None}


async def hold(pool: Pool) -> None:
    """The pool's clients wait, and it has no server connection.

    Raises RouteError if that could not be had within `pause_timeout_s`, with the reason; the pool goes on then, unless
    the reason says that it could not be resumed either.
    """
    endings = await asyncio.gather(*(_held(pool, name) for name in pool.databases or ALL))
    problems = [problem for problem in endings if problem is not None]
    if problems:
        why = "; ".join(dict.fromkeys(str(problem) for problem in problems))
        is_untouched = all(isinstance(ending, NoSession) for ending in endings)
        raise RouteError(f"{pool} was not held: {why}{'' if is_untouched else await _undone(pool)}")


async def _held(pool: Pool, database: str) -> RouteError | None:
    """Why that database was not paused; None: it is."""
    try:
        async with session(pool.fields) as console:
            await _wait_for_logins(console)
            async with asyncio.timeout(pool.pause_timeout_s):
                await _pause(console, database)
    except TimeoutError:
        return RouteError(f"server connections were still in use after {pool.pause_timeout_s:g} s")
    except RouteError as error:
        return error
    return None


async def _wait_for_logins(console: Session) -> None:
    """None is being made, or some still are after LOGINS_S: a pause would make it a failure of the server's."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + LOGINS_S
    while _sum(await console.ask("SHOW POOLS"), "sv_login"):
        if loop.time() >= give_up_at:
            return
        await asyncio.sleep(POLL_S)


async def _pause(console: Session, database: str) -> None:
    """Paused, by us or by somebody else before. Takes as long as transactions do."""
    try:
        await console.ask(_command("PAUSE", database), timeout_s=None)
    except Refused as refusal:
        if "already" not in str(refusal):
            raise
        await _wait_until_idle(console, database)


async def _wait_until_idle(console: Session, database: str) -> None:
    while True:
        if not _in_use(await console.ask("SHOW POOLS"), database):
            return
        await asyncio.sleep(POLL_S)


async def _undone(pool: Pool) -> str:
    """The pool goes on. What is to be added to the reason of a pause that failed: how many connections were in its way,
    or why it could not be resumed.
    """
    try:
        async with session(pool.fields) as console:
            rows = await console.ask("SHOW POOLS")
            await resume(pool, console)
    except RouteError as error:
        return f"; it could not be resumed: {error}"
    busy = sum(_in_use(rows, name) for name in pool.databases or ALL)
    return f" ({busy} of them, each in a transaction or in session pooling)" if busy else ""


async def resume(pool: Pool, console: Session) -> bool:
    """No client of the pool is kept waiting; False if none was. Raises RouteError, of the last database that could not
    be resumed, once all the others are.
    """
    was_paused, failure = False, None
    for database in pool.databases or ALL:
        try:
            await console.ask(_command("RESUME", database))
            was_paused = True
        except Refused as refusal:
            if not any(words in str(refusal) for words in NOBODY_WAITS):
                failure = refusal
    if failure is not None:
        raise failure
    return was_paused


async def reload(pool: Pool) -> None:
    """PgBouncer has read its files again. Raises RouteError."""
    try:
        async with session(pool.fields) as console:
            await console.ask("RELOAD")
    except RouteError as error:
        raise RouteError(f"{pool} was not reloaded: {error}") from error


async def targets(pool: Pool, console: Session) -> frozenset[tuple[str, int]]:
    """Where its databases lead: (host, port), the host empty for a Unix socket of PgBouncer's own host.

    Raises RouteError. Databases that a `*` stands for are known to it only once a client has asked for them.
    """
    rows = await console.ask("SHOW DATABASES")
    wanted = [row for row in rows if row.get("name") != CONSOLE and _is_named(row.get("name"), pool.databases)]
    found = set()
    for row in wanted:
        port = _number(row.get("port"))
        hosts = (row.get("host") or "").split(",")
        found |= {("" if host.startswith("/") else host, port) for host in hosts}
    return frozenset(found)


async def slow_retry(console: Session) -> str:
    """A warning where one failed login would cost clients seconds; empty where not. Raises RouteError."""
    for row in await console.ask("SHOW CONFIG"):
        if row.get("key") == "server_login_retry" and _number(row.get("value")) > LONGEST_LOGIN_RETRY_S:
            return (
                f"server_login_retry is {row.get('value')}: so many seconds clients wait after one failed connection "
                f"to a server; set it to {LONGEST_LOGIN_RETRY_S} or less"
            )
    return ""


def _is_named(name: str | None, databases: tuple[str, ...]) -> bool:
    return not databases or name in databases


def _command(verb: str, database: str) -> str:
    quoted = database.replace('"', '""')
    return f'{verb} "{quoted}"' if database else verb


def _in_use(rows: Iterable[Row], database: str) -> int:
    mine = [row for row in rows if row.get("database") != CONSOLE and database in ("", row.get("database"))]
    return _sum(mine, "sv_active") + _sum(mine, "sv_tested")


def _sum(rows: Iterable[Row], column: str) -> int:
    return sum(_number(row.get(column)) for row in rows)


def _number(text: str | None) -> int:
    """The whole seconds, or whatever it counts; 0 for what is no number."""
    digits = (text or "").partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0
