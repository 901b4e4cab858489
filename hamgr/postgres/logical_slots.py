"""Logical slots with `failover`: made on the primary, dropped where a former primary has its own, waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence

from hamgr.postgres import configuration
from hamgr.postgres import sql as sql_access
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerBroken, ServerRefused
from hamgr.postgres.sql import Sql

CREATE_S = 10.0
"""A new slot waits for the end of every transaction that runs; a long one is waited for by trying again."""

PRESENT = "SELECT slot_name FROM pg_replication_slots WHERE slot_name = ANY(%s)"
CREATE = "SELECT pg_create_logical_replication_slot(%s, %s, false, false, true)"
"""Name, plugin, not temporary, not two-phase, failover."""

WORKER_START_S = 15.0
WORKER_POLL_S = 1.0
IS_COPYING = """
SELECT current_setting('sync_replication_slots') = 'off'
       OR EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'slotsync worker')
"""

DROP_FORMER = """
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
 WHERE slot_name = ANY(%s) AND failover AND NOT synced AND NOT active AND pg_is_in_recovery()
"""


class LogicalSlotKeeper:
    """For PostgreSQL 17 and newer. Errors are those of `errors`."""

    def __init__(self, config: ServerConfig, disk: Disk, sql: Sql, reload: Callable[[], Awaitable[None]]) -> None:
        self._config, self._disk, self._sql, self._reload = config, disk, sql, reload

    def configure(self, config: ServerConfig) -> None:
        self._config = config

    async def create(self, names: Collection[str]) -> None:
        """Declared slots of these names stand on the running primary. What is no longer declared is left out."""
        present = {row[0] for row in await self._sql.query(PRESENT, (list(names),))}
        for name in names:
            if name in self._config.logical.declared and name not in present:
                await self._create(name)

    async def _create(self, name: str) -> None:
        declared = self._config.logical.declared[name]
        try:
            connection = await sql_access.connect(self._config, database=declared.database)
            try:
                making = connection.execute(CREATE.encode(), (name, declared.plugin))
                await sql_access.with_deadline(connection, making, CREATE_S)
            finally:
                await connection.close()
        except (ServerRefused, ServerBroken) as error:
            raise ServerRefused(f"logical slot {name}: {error}", hint="correct `slots`") from error

    async def drop_former(self, names: Collection[str]) -> None:
        """The standby has no failover slot of its own by these names, and copies the primary's, if it is told to.

        What it has copied is left alone. The worker that copies ends when it meets a slot of its own, and is started
        again after ten seconds at the earliest, but only once something wakes the postmaster: a connection does.
        Source: src/backend/replication/logical/slotsync.c, SlotSyncWorkerCanRestart; postmaster.c, ServerLoop.
        """
        await self._sql.query(DROP_FORMER, (list(names),))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORKER_START_S):
                while not await self._is_copying():  # noqa: ASYNC110 -- the server has no event for it
                    await asyncio.sleep(WORKER_POLL_S)

    async def _is_copying(self) -> bool:
        connection = await sql_access.connect(self._config)
        try:
            asking = connection.execute(IS_COPYING.encode())
            cursor = await sql_access.with_deadline(connection, asking, sql_access.STATEMENT_S)
            return bool((await cursor.fetchall())[0][0])
        finally:
            await connection.close()

    async def await_standbys(self, slots: Sequence[str]) -> None:
        """Consumers of failover slots wait for the standbys of these physical slots, and for no other."""
        changed = await self._disk.run(
            lambda: configuration.write_standbys(self._config, slots), "write the standbys to wait for"
        )
        if changed:
            await self._reload()
