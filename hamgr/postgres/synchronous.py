"""synchronous_standby_names: written, in force in every process that it concerns, and proven to be.

That a session shows the new value says nothing of the others. Whether commits wait at all is a flag in shared memory
that the checkpointer sets when it has read the configuration, which it does not do while it syncs files; and each
walsender releases waiting commits by the value that it has read itself.
Source: src/backend/replication/syncrep.c, SyncRepWaitForLSN, SyncRepUpdateSyncStandbysDefined, SyncRepReleaseWaiters.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from hamgr.core.quorum import ALONE, BLOCKED, SyncRule
from hamgr.core.synchronous import rule_of
from hamgr.postgres import configuration
from hamgr.postgres import sql as sql_access
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerError, ServerUnavailable
from hamgr.postgres.promote import COMMIT
from hamgr.postgres.sql import Connection, Sql

IN_FORCE_S = 2.0
POLL_S = 0.002

SHOWN = "SELECT current_setting('synchronous_standby_names'), pg_conf_load_time()::text"

RELEASERS = """
SELECT application_name, CASE WHEN flush_lsn IS NOT NULL THEN sync_priority END
FROM pg_stat_replication WHERE state = 'streaming'
"""
"""Walsenders that may release a commit, each with the place in the list that it has read its standby to have. NULL: not
shown before its standby has told a position; it may release by what it has read as soon as that comes.
"""


class SyncSetting:
    """What the local server's commits wait for. Errors are those of `errors`."""

    def __init__(self, config: ServerConfig, disk: Disk, sql: Sql, reload: Callable[[], Awaitable[None]]) -> None:
        self._config, self._disk, self._sql, self._reload = config, disk, sql, reload

    def configure(self, config: ServerConfig) -> None:
        self._config = config

    async def put_in_force(self, rule: SyncRule | None) -> None:
        """Every commit that is acknowledged from now on waited for `rule`; None: for what the configuration says.

        Where commits did not wait before, they wait for nobody (for some milliseconds) until one was seen to.
        Raises ServerUnavailable if that is not so in time: then the former rule is written again.
        """
        former = await self._written()
        try:
            async with asyncio.timeout(IN_FORCE_S):
                await self._put_in_force(rule, former)
        except (ServerError, TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(ServerError):
                await self._write(former)
                await self._reload()
            if isinstance(error, TimeoutError):
                raise ServerUnavailable(f"synchronous_standby_names is not in force after {IN_FORCE_S:g} s") from error
            raise

    async def prepare(self, rule: SyncRule | None) -> None:
        """A standby that is promoted now acknowledges nothing before `put_in_force(rule)`, if that waits for any.

        Raises ServerUnavailable if the server does not take it over in time.
        """
        text = BLOCKED.text if rule is not None and rule.count else None if rule is None else ""
        try:
            async with asyncio.timeout(IN_FORCE_S):
                await self._take_over(text)
        except TimeoutError as error:
            raise ServerUnavailable(
                f"synchronous_standby_names is not in force after {IN_FORCE_S:g} s",
                hint="the server's log tells whether it refuses its configuration files",
            ) from error

    async def _put_in_force(self, rule: SyncRule | None, former: str | None) -> None:
        if rule is None or not rule.count:
            await self._take_over(None if rule is None else "")
            return
        if former in (None, "", BLOCKED.text):
            await self._take_over(BLOCKED.text)
            await self._wait_until_commits_wait()
        if rule != BLOCKED:
            await self._take_over(rule.text)
            await self._wait_until_released_by(rule, rule_of(former or "") or ALONE)

    async def _written(self) -> str | None:
        return await self._disk.run(lambda: configuration.read_sync(self._config), "read the synchronous setting")

    async def _write(self, text: str | None) -> bool:
        return await self._disk.run(
            lambda: configuration.write_sync(self._config, text), "write the synchronous setting"
        )

    async def _take_over(self, text: str | None) -> None:
        """Written, read by the server, and shown by our own session."""
        shown, loaded_before = (await self._sql.query(SHOWN))[0]
        changed = await self._write(text)
        if changed or text not in (None, shown):
            await self._reload()
        loaded = "" if not changed else loaded_before
        while loaded == loaded_before or text not in (None, shown):
            await asyncio.sleep(POLL_S)
            shown, loaded = (await self._sql.query(SHOWN))[0]

    async def _wait_until_commits_wait(self) -> None:
        """A commit was seen to wait for a standby that never comes, and was let go."""
        connection = await sql_access.connect(self._config)
        try:
            await connection.execute("SET synchronous_commit = on")
            while not await self._is_seen_waiting(connection):  # noqa: ASYNC110 -- the server has no event for it
                await asyncio.sleep(POLL_S)
        finally:
            await connection.close()

    async def _is_seen_waiting(self, connection: Connection) -> bool:
        pid = connection.info.backend_pid
        commit = asyncio.ensure_future(
            sql_access.with_deadline(connection, connection.execute(COMMIT.encode()), IN_FORCE_S)
        )
        try:
            while not commit.done():
                waits = await self._sql.query("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (pid,))
                if waits and waits[0][0] == "SyncRep":
                    # The commit is done here and only here: it changes no table.
                    await self._sql.query("SELECT pg_cancel_backend(%s)", (pid,))
                    await commit
                    return True
                await asyncio.sleep(POLL_S / 2)
            await commit
            return False
        finally:
            commit.cancel()

    async def _wait_until_released_by(self, rule: SyncRule, former: SyncRule) -> None:
        """No walsender goes by another list any more. A frozen one could, once it is thawed."""

        def may_go_by_another(name: str, place: int | None) -> bool:
            return former.place_of(name) != 0 if place is None else place != rule.place_of(name)

        while any(may_go_by_another(*each) for each in await self._sql.query(RELEASERS)):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
