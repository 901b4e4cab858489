"""Is what this server holds an ancestor of what another one holds?"""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.actions import Upstream
from hamgr.postgres import source, wal
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.errors import Diverged, ServerBroken


@dataclass(frozen=True, slots=True)
class HistoryCheck:
    """The local end of WAL, and the upstream it was compared with."""

    local: wal.Position
    upstream: source.Source


async def check(config: ServerConfig, system_identifier: str, local: wal.Position, upstream: Upstream) -> HistoryCheck:
    """`local`, read before this call, is an ancestor of the upstream's position.

    Raises Diverged if it is not, ServerBroken if the upstream is another cluster, ServerUnavailable if it does
    not answer.
    """
    there = await source.ask(config, upstream)
    if there.system_identifier != system_identifier:
        raise ServerBroken(
            f"{upstream.host} is of another cluster ({there.system_identifier}, here {system_identifier})",
            hint="one of the data directories belongs elsewhere; reinitialize it",
        )
    if wal.has_diverged(local, there.position, there.history):
        here, them = local, there.position
        raise Diverged(
            f"ends at {here.lsn} on timeline {here.timeline}, which is not in the history of {upstream.host} "
            f"({them.lsn} on timeline {them.timeline})"
        )
    return HistoryCheck(local, there)
