"""HAProxy told at once who accepts writes, by its runtime socket. Its health checks go on and have the last word.

Source: HAProxy's management guide, "Unix Socket commands": `set server B/S health` moves the counter that health checks
move, with all that follows from it (`on-marked-down shutdown-sessions`). It needs `level admin`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass

from hamgr.routing.errors import RouteError

BUDGET_S = 0.5
UNKNOWN = "No such server."
"""Its answer for a member that is not, or no longer, one of its servers."""

RUNNING = "2"
"""srv_op_state of a server that gets connections."""

MAX_ANSWER_BYTES = 1 << 20
SHOWN_CHARACTERS = 120
_SERVER_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
"""What HAProxy takes for one. Nothing else is sent to it: a semicolon would begin another command."""


@dataclass(frozen=True, slots=True)
class Balancer:
    """One HAProxy by its runtime socket: `path`, or host and port."""

    backend: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"load balancer {self.path or f'{host}:{self.port}'}"


async def push(balancer: Balancer, me: str, others: Iterable[str]) -> None:
    """The balancer sends new connections to `me` and none to the others, whose sessions it ends.

    Raises RouteError if it did not confirm that in time.
    """
    if not _SERVER_NAME.fullmatch(me):
        raise RouteError(f"{balancer} was not told: {me} cannot be the name of a server there")
    down = [_health(balancer, other, "down") for other in others if _SERVER_NAME.fullmatch(other)]
    answer = await _told(balancer, [*down, _health(balancer, me, "up"), f"show servers state {balancer.backend}"])
    complaints = [line for line in answer.splitlines() if line and not line[0].isdigit() and line[0] != "#"]
    is_up = _states(answer).get(me) == RUNNING
    if not is_up or set(complaints) - {UNKNOWN}:
        why = " ".join(dict.fromkeys(complaints))[:SHOWN_CHARACTERS] or "it has the server down still"
        raise RouteError(f"{balancer} was not told: backend {balancer.backend}, server {me}: {why}")


async def leave(balancer: Balancer, me: str) -> None:
    """The balancer sends no more connections here: they would be refused. Raises RouteError."""
    if _SERVER_NAME.fullmatch(me):
        await _told(balancer, [_health(balancer, me, "down")])


def _health(balancer: Balancer, server: str, word: str) -> str:
    return f"set server {balancer.backend}/{server} health {word}"


async def _told(balancer: Balancer, commands: list[str]) -> str:
    """All that it answered to these commands, which it has carried out one after the other."""
    try:
        async with asyncio.timeout(BUDGET_S):
            return await _exchange(balancer, "; ".join(commands))
    except TimeoutError:
        raise RouteError(f"{balancer} was not told: no answer within {BUDGET_S:g} s") from None
    except (OSError, UnicodeError) as error:
        raise RouteError(f"{balancer} was not told: {error}") from error


async def _exchange(balancer: Balancer, line: str) -> str:
    if balancer.path:
        reader, writer = await asyncio.open_unix_connection(balancer.path)
    else:
        reader, writer = await asyncio.open_connection(balancer.host, balancer.port)
    try:
        writer.write(line.encode() + b"\n")
        await writer.drain()
        return (await reader.read(-1))[:MAX_ANSWER_BYTES].decode(errors="replace")
    finally:
        writer.close()


def _states(answer: str) -> dict[str, str]:
    """Server -> srv_op_state, from the lines that `show servers state` adds; the columns are in its first line."""
    columns: list[str] = []
    found: dict[str, str] = {}
    for line in answer.splitlines():
        if line.startswith("# be_id"):
            columns = line[2:].split()
        elif columns and line:
            row = dict(zip(columns, line.split(), strict=False))
            found[row.get("srv_name", "")] = row.get("srv_op_state", "")
    return found
