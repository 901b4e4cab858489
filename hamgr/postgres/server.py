"""The local server for the executor: every action on it as one awaitable call."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hamgr.core.actions import Upstream
from hamgr.core.quorum import SyncRule
from hamgr.core.server import Birth, ServerIdentity
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import clone, configuration, control, errors, process, programs, receiver, source
from hamgr.postgres import promote as promotion
from hamgr.postgres import rewind as rewinding
from hamgr.postgres import sql as sql_access
from hamgr.postgres.config import LogicalSlots, ServerConfig, Value, find_bin_dir, with_logins_of
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import Diverged, RewindFailed, ServerBroken, ServerError, ServerRefused, ServerUnavailable
from hamgr.postgres.logical_slots import LogicalSlotKeeper
from hamgr.postgres.parent import Parent
from hamgr.postgres.sentry import WatchedPage, ensure_sentry
from hamgr.postgres.sight import PROBE_S, SeenServer
from hamgr.postgres.slot_keeper import SlotKeeper
from hamgr.postgres.synchronous import SyncSetting
from hamgr.postgres.versions import Version, version

START_S = 300.0
STANDBY_START_S = 10.0
"""A standby that lacks WAL is not consistent and accepts nothing until it gets it, maybe from another upstream: whoever
waits for it must be free to point it there."""


class LocalServer(SeenServer):
    """One PostgreSQL server and its data directory: seen (`sight`) and acted on. Made by `open_server`."""

    def __init__(self, config: ServerConfig, parent: Parent, bin_dir: Path, known: Version, disk: Disk) -> None:
        super().__init__(config, bin_dir, known.major, disk)
        self._parent = parent
        self._version = known
        self._slots = SlotKeeper(config, disk, self._sql)
        self._logical = LogicalSlotKeeper(config, disk, self._sql, self.reload)
        self._sync = SyncSetting(config, disk, self._sql, self.reload)

    # -- starting and stopping ---------------------------------------------------------------------------------

    async def start_primary(
        self,
        *,
        timeout_s: float = START_S,
        spawned: Callable[[ServerIdentity], None] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ServerIdentity:
        """The server runs out of recovery and accepts connections.

        `spawned` is called with the process as soon as it exists. Raises ServerRefused where the directory is a
        standby's or a fresh clone: started so it would write on the old timeline; promote it instead.
        """
        found = await control.read_control(self.bin_dir, self.config.data_dir)
        label = self.config.data_dir / "backup_label"
        if not found.file.was_primary or await self.disk.run(label.exists, "look for backup_label"):
            raise ServerRefused(
                f"not a primary's data directory ({found.file.cluster_state})", hint="start as a standby and promote"
            )
        await self._write_start_files(standby=False, floors={})
        return await self._spawn(timeout_s, spawned, progress)

    async def start_standby(
        self,
        upstream: Upstream | None,
        *,
        timeout_s: float = STANDBY_START_S,
        spawned: Callable[[ServerIdentity], None] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ServerIdentity:
        """The server runs in recovery, accepts reading connections and streams from `upstream` if it names a host.

        None: from where it was told to stream before. Raises ServerUnavailable if it does not accept connections in
        time; it goes on starting. Raises ServerRefused where it never could, for want of WAL and of an upstream.
        """
        found = await control.read_control(self.bin_dir, self.config.data_dir)
        if upstream is not None and not upstream.host:
            await self.refuse_without_wal(found.file)
        if upstream is not None:
            await self.disk.run(lambda: configuration.write_upstream(self.config, upstream), "write the upstream")
        await self._write_start_files(standby=True, floors=found.floors)
        return await self._spawn(timeout_s, spawned, progress)

    async def _write_start_files(self, *, standby: bool, floors: Mapping[str, int]) -> None:
        running = await self._observer.find()
        if running is not None:
            raise ServerRefused(f"the server runs already (pid {running.pid})")

        def write() -> None:
            configuration.write_passfile(self.config)
            configuration.write(self.config, self._version, floors)
            configuration.role_signal(self.config, standby=standby)
            if standby:
                configuration.write_standbys(self.config, ())

        await self.disk.run(write, "write the configuration")

    async def _spawn(
        self,
        timeout_s: float,
        spawned: Callable[[ServerIdentity], None] | None,
        progress: Callable[[str], None] | None,
    ) -> ServerIdentity:
        data_dir = self.config.data_dir
        argv = [str(self.bin_dir / "postgres"), "-D", str(data_dir), *configuration.fixed_arguments(self.config)]
        reused = await self.disk.run(lambda: process.reused_pid(data_dir), "read postmaster.pid")
        if told := process.told_of_reused_pid(reused):
            argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in told.items()), *argv]
        identity = await self._parent.spawn(argv)
        self._observer.started(identity)
        if spawned is not None:
            spawned(identity)
        try:
            await process.wait_until_accepting(self.disk, data_dir, identity, timeout_s, progress)
        except ServerBroken as error:
            error.hint = await self._configuration_error() or error.hint
            raise
        return identity

    async def stop(self, budget_s: float) -> process.Ending:
        """No process of the server is left: fast, then immediate, then kill of the tree, all within the budget."""
        identity = await self._observer.find()
        if identity is None:
            await self._parent.kill_tree()
            return process.Ending.NOT_RUNNING
        self._observer.is_stopping = True
        self._observer.stopped_by_us()
        try:
            return await process.stop(identity, self._parent, self.disk, self.config.data_dir, budget_s)
        finally:
            self._observer.is_stopping = False
            await self._sql.close()

    async def kill_tree(self) -> int:
        """No process of the server is left, not even one whose postmaster is dead."""
        if self.identity is not None and process.is_alive(self.identity):
            self._observer.stopped_by_us()
        return await self._parent.kill_tree()

    async def restart(self, budget_s: float, upstream: Upstream | None, *, timeout_s: float = START_S) -> None:
        """Stopped and started again: as a standby of `upstream`, or as the primary where that is None."""
        await self.stop(budget_s)
        if upstream is None:
            await self.start_primary(timeout_s=timeout_s)
        else:
            await self.start_standby(upstream, timeout_s=timeout_s)

    async def reload(self) -> None:
        """The server was told to read its configuration files again. Raises ServerRefused if it does not run."""
        identity = await self._observer.find()
        if identity is None or not process.send(identity, signal.SIGHUP):
            raise ServerRefused("the server does not run")

    # -- role and upstream -------------------------------------------------------------------------------------

    async def follow(self, upstream: Upstream) -> bool:
        """The replica streams from `upstream` from now on, without a restart; False if it did already."""
        changed = await self.disk.run(lambda: configuration.write_upstream(self.config, upstream), "write the upstream")
        await self.disk.run(lambda: configuration.write_passfile(self.config), "write the passfile")
        if changed:
            await self.reload()
        return changed

    async def promote(
        self, timeout_s: float, *, old_timeline: Timeline, sync: SyncRule | None = None
    ) -> promotion.Promotion:
        """The running standby is a primary on a timeline after `old_timeline` and has committed; `sync` is in force.

        No commit is acknowledged before that, if `sync` waits for any standby.
        """
        await self._sync.prepare(sync)
        promoted = await promotion.promote(self._sql, timeout_s, old_timeline=old_timeline)
        if sync is not None and sync.count:
            await self._sync.put_in_force(sync)
        return promoted

    async def set_sync(self, rule: SyncRule | None) -> None:
        """The running primary's commits wait for `rule`; see SyncSetting.put_in_force."""
        await self._sync.put_in_force(rule)

    async def stop_receiver(self) -> None:
        """The replica receives no more until `follow`, and what it received is flushed.

        Raises ServerUnavailable if its receiver does not end in time.
        """
        try:
            await receiver.stop(self._sql, lambda: self.follow(Upstream()))
        except TimeoutError as error:
            raise ServerUnavailable("the WAL receiver does not end") from error

    async def note_birth(self, birth: Birth) -> Birth:
        """What the running server's data directory tells from now on of its timeline; see Observer.note_birth."""
        return await self._observer.note_birth(birth)

    async def verify(self) -> promotion.Promotion:
        """The running primary has committed; it was promoted (or started) before."""
        return await promotion.verify(self._sql, PROBE_S)

    async def checkpoint(self, timeout_s: float) -> None:
        """A checkpoint (restart point on a replica) is done. On a connection of its own: probes go on."""
        connection = await sql_access.connect(self.config)
        try:
            await sql_access.with_deadline(connection, connection.execute("SET statement_timeout = 0"), PROBE_S)
            await sql_access.with_deadline(connection, connection.execute("CHECKPOINT"), timeout_s)
        finally:
            await connection.close()

    async def ensure_slots(
        self, members: Collection[str], *, in_recovery: bool = False, positions: Mapping[str, Lsn] | None = None
    ) -> None:
        """Physical slots stand for those members (this one left out); see SlotKeeper.ensure."""
        if self.config.use_slots:
            await self._slots.ensure(members, in_recovery=in_recovery, positions=positions or {})

    async def create_logical_slots(self, names: Collection[str]) -> None:
        """Declared slots of these names stand on the running primary. Raises ServerRefused naming one that cannot."""
        await self._logical.create(names)

    async def drop_former_slots(self, names: Collection[str]) -> None:
        """The standby has no failover slot of its own by these names; see LogicalSlotKeeper.drop_former."""
        await self._logical.drop_former(names)

    async def await_standbys(self, slots: Sequence[str]) -> None:
        """Consumers of failover slots wait for the standbys of these physical slots, and for no other."""
        await self._logical.await_standbys(slots)

    async def ensure_sentry(self, page: WatchedPage) -> bool:
        """The server ends by itself before the deadline on that page; see `hamgr.postgres.sentry`. False: as before."""
        return await ensure_sentry(self.config, self._sql, page)

    # -- the data directory ------------------------------------------------------------------------------------

    async def initdb(self) -> None:
        """A new cluster stands in the data directory. Start it as primary, then `create_roles`."""
        await clone.initdb(self.config, self.bin_dir, self.disk)

    async def create_roles(self) -> None:
        """Replication and rewind roles exist on the running primary with their passwords; writes only what differs."""
        await clone.create_roles(self.config, self._sql)

    async def check_source(self, upstream: Upstream, system_identifier: str) -> None:
        """`upstream` answers, and is of that cluster: it can be copied. Raises ServerUnavailable, ServerRefused."""
        await self.disk.run(lambda: configuration.write_passfile(self.config), "write the passfile")
        there = await source.ask(self.config, upstream)
        if there.system_identifier != system_identifier:
            raise ServerRefused(f"{upstream.host} is of another cluster ({there.system_identifier})")

    async def clone(self, upstream: Upstream, progress: Callable[[clone.CloneProgress], None] | None = None) -> None:
        """The data directory is a copy of `upstream`; it was empty or unfinished before."""
        await self._refuse_while_running()
        await self.disk.run(lambda: configuration.write_passfile(self.config), "write the passfile")
        await clone.basebackup(self.config, self.bin_dir, self.disk, upstream, progress)

    async def rewind(self, upstream: Upstream) -> bool:
        """The data directory continues `upstream`'s history; False if it did already.

        Raises RewindFailed also where pg_rewind would see nothing to do although the histories differ, WalGone where
        they do not but the WAL in between is gone: a clone heals both.
        """
        await self._refuse_while_running()
        await self.disk.run(lambda: configuration.write_passfile(self.config), "write the passfile")
        try:
            await self.check_history(upstream)
        except (errors.Forked, errors.WalUnreadable) as error:
            raise RewindFailed(f"not a case for pg_rewind: {error}", directory_touched=False) from error
        except Diverged as error:
            if await rewinding.rewind(self.config, self._version, self.bin_dir, self.disk, upstream):
                return True
            raise RewindFailed(f"pg_rewind sees no divergence, yet it {error}", directory_touched=False) from error
        return False

    async def keep_aside(self, keep: int = 1) -> Path | None:
        """The data directory is empty; what was in it stands beside it (or inside, if it is a mount point).

        None if there was no cluster in it: an empty one must not push out what was kept before.
        """
        await self._refuse_while_running()
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z"
        data_dir = self.config.data_dir
        return await self.disk.run(
            lambda: clone.keep_aside(data_dir, stamp, keep), "keep the data directory aside", clone.REMOVE_S
        )

    async def remove_cluster(self) -> None:
        """The data directory is empty; what was in it is gone for good."""
        await self._refuse_while_running()
        data_dir = self.config.data_dir
        await self.disk.run(lambda: clone.remove_cluster(data_dir), "remove the data directory", clone.REMOVE_S)

    async def _refuse_while_running(self) -> None:
        running = await self._observer.find()
        if running is not None:
            raise ServerRefused(f"the server runs (pid {running.pid})", hint="stop it first")

    # -- configuration -----------------------------------------------------------------------------------------

    async def apply_config(
        self,
        parameters: Mapping[str, Value],
        pg_hba: Sequence[str] | None,
        *,
        member_slots_ttl_s: float | None = None,
        logical: LogicalSlots | None = None,
    ) -> bool:
        """Parameters and pg_hba lines are written, and a running server was told; False if nothing changed.

        What needs a restart shows as pending in the next probe. Raises ServerRefused with the server's words if
        it would not start with them: then the former ones stay.
        """
        former = self.config
        ttl_s = former.member_slots_ttl_s if member_slots_ttl_s is None else member_slots_ttl_s
        wanted = replace(
            former,
            parameters=dict(parameters),
            pg_hba=None if pg_hba is None else tuple(pg_hba),
            member_slots_ttl_s=ttl_s,
            logical=former.logical if logical is None else logical,
        )
        version_file = former.data_dir / "PG_VERSION"
        if not await self.disk.run(version_file.exists, "look for a cluster"):
            self._take(with_logins_of(self.config, wanted))
            return False
        floors = await self._floors()
        changed = await self._write_config(wanted, floors)
        if changed and (complaint := await self._configuration_error()):
            await self._write_config(former, floors)
            raise ServerRefused(complaint, hint="correct postgresql.parameters in the dynamic configuration")
        self._take(with_logins_of(self.config, wanted))
        if changed and await self._observer.find() is not None:
            await self.reload()
        return changed

    async def use_logins(self, wanted: ServerConfig) -> None:
        """Roles and passwords are those of `wanted`, for us and in the passfile that server and programs read.

        The roles of the servers themselves stay as they are. Raises ServerError if the passfile cannot be written.
        """
        self._take(with_logins_of(wanted, self.config))
        await self.disk.run(lambda: configuration.write_passfile(self.config), "write the passfile")

    async def _write_config(self, config: ServerConfig, floors: Mapping[str, int]) -> bool:
        may_sync = not config.logical.are_synced or await self._may_sync_slots()
        return await self.disk.run(
            lambda: configuration.write(config, self._version, floors, may_sync=may_sync), "write the configuration"
        )

    async def _may_sync_slots(self) -> bool:
        """Not in a server that runs with a lower wal_level: only its next start has the one that is configured."""
        if await self._observer.find() is None:
            return True
        return bool((await self._sql.query("SELECT current_setting('wal_level') = 'logical'"))[0][0])

    async def _floors(self) -> Mapping[str, int]:
        standby = await self.disk.run((self.config.data_dir / "standby.signal").exists, "look for standby.signal")
        if not standby:
            return {}
        return (await control.read_control(self.bin_dir, self.config.data_dir)).floors

    def _take(self, config: ServerConfig) -> None:
        self.config = config
        self._observer.configure(config)
        self._slots.configure(config)
        self._logical.configure(config)
        self._sync.configure(config)

    async def _configuration_error(self) -> str:
        """What the server says against its configuration files; empty if nothing. They are only read."""
        argv = [str(self.bin_dir / "postgres"), "-D", str(self.config.settings_dir), "-C", "data_directory"]
        try:
            ended = await programs.run(argv, timeout_s=PROBE_S * 5)
        except ServerError as error:
            return str(error)
        return programs.last_words(ended, lines=6) if ended.status != 0 else ""

    async def close(self) -> None:
        """Connections and threads are let go; the server runs on."""
        await self._sql.close()
        self.disk.close()


async def open_server(config: ServerConfig, parent: Parent, disk: Disk | None = None) -> LocalServer:
    """The local server with its programs found. Raises ServerBroken without programs, ServerRefused for a version
    that is not supported."""
    own = disk or Disk()
    bin_dir = config.bin_dir
    if bin_dir is None:
        bin_dir = await own.run(lambda: find_bin_dir(config.data_dir), "find the server's programs")
    # Pinned: a change of unix_socket_directories must not part us from the server that runs with the old one.
    config = replace(config, socket_dir=config.sockets)
    return LocalServer(config, parent, bin_dir, version(await control.program_major(bin_dir)), own)
