"""The local server as others may ask about it: every question here changes nothing on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg.rows import TupleRow

from hamgr.core.actions import Upstream
from hamgr.core.server import ControlFile, ServerIdentity, ServerView
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import control, health, history, lineage, process, source, wal
from hamgr.postgres import sql as sql_access
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerRefused
from hamgr.postgres.observer import Observer

PROBE_S = 2.0

RECEIVED = """
SELECT coalesce(w.received_tli, 0), coalesce(w.status = 'streaming', false),
       r.lsn IS NULL AND pg_is_in_recovery(),
       coalesce(greatest(r.lsn, pg_last_wal_replay_lsn()), '0/0')::text
  FROM (SELECT pg_last_wal_receive_lsn() AS lsn) r, pg_stat_get_wal_receiver() w
"""
"""The third column: the server has asked for no WAL since its start, so it does not say what it received before.

It asks once all WAL on its disk is replayed. The position received is read first, the replayed one after it: so where
there is the one, the other counts all of that WAL.
Source: src/backend/access/transam/xlogrecovery.c, WaitForWALToBecomeAvailable.
"""


@dataclass(frozen=True, slots=True)
class Received:
    """What a replica has received and flushed, replayed or not. `streaming` False: no more comes for now."""

    timeline: Timeline
    lsn: Lsn
    streaming: bool


class SeenServer:
    """What can be seen of one PostgreSQL server, its data directory and its upstream. Errors are those of `errors`."""

    def __init__(self, config: ServerConfig, bin_dir: Path, major: int, disk: Disk) -> None:
        self.config = config
        self.bin_dir = bin_dir
        self.disk = disk
        self._sql = sql_access.Sql(config)
        self._observer = Observer(config, bin_dir, major, disk, self._sql)

    @property
    def identity(self) -> ServerIdentity | None:
        """The server's process as last known; it may have ended."""
        return self._observer.identity

    async def probe(self, *, timeout_s: float = PROBE_S) -> ServerView:
        """The server now; never raises ServerError."""
        return await self._observer.view(timeout_s=timeout_s)

    async def adopt(self) -> ServerIdentity | None:
        """The process of a server that runs already, or None."""
        return await self._observer.find()

    async def wait_until_exit(self) -> None:
        """The known server process has ended. Returns at once if none is known."""
        if self.identity is not None:
            await process.wait_until_exit(self.identity)

    async def received(self) -> Received:
        """Fresh, and all that was received, also before the server's start.

        Without a WAL receiver the timeline is that of the newest WAL on the disk.
        Before the server has asked for any WAL since its start the disk is read instead, which takes a program's run:
        a crashed replica lets us in before it has replayed all that it acknowledged, and would vote with less.
        """
        timeline, streaming, has_asked_for_none, lsn = (await self._sql.query(RECEIVED, timeout_s=PROBE_S))[0]
        if has_asked_for_none:
            held = await self._held()
            return Received(held.timeline, held.lsn, streaming)
        known = Timeline(timeline) or await self._received_on()
        return Received(known, Lsn.parse(lsn), streaming)

    async def _received_on(self) -> Timeline:
        """The timeline of the newest WAL that a replica without WAL receiver has."""
        data_dir = self.config.data_dir
        known = self._observer.timeline or (await source.identify_local(self.config)).timeline
        return max(known, await self.disk.run(lambda: wal.newest_timeline(data_dir), "look at the WAL"))

    async def query(
        self, statement: str, parameters: Sequence[object] = (), *, timeout_s: float = sql_access.STATEMENT_S
    ) -> list[TupleRow]:
        """Rows of one statement on the persistent superuser connection."""
        return await self._sql.query(statement, parameters, timeout_s=timeout_s)

    async def open_door(self, patience_s: float) -> health.Door:
        """How the server answers a fresh connection. No deadline: see health."""
        return await health.open_door(self.config, patience_s)

    async def commit(self, door: health.Door) -> str | None:
        """What is wrong with a commit. No deadline: see health."""
        return await health.commit(self.config, self._sql, door)

    def write_data_disk(self) -> str | None:
        """What is wrong with the data directory's file system. Blocking, and not through `disk`: see health."""
        return health.write_data_disk(self.config)

    def write_wal_disk(self) -> str | None:
        """What is wrong with the WAL's file system, where it is another one. Blocking."""
        return health.write_wal_disk(self.config)

    async def shutdown_lsn(self) -> Lsn:
        """Where the WAL of a cleanly stopped server ends: behind the shutdown checkpoint."""
        found = (await control.read_control(self.bin_dir, self.config.data_dir)).file
        if not found.was_shut_down_cleanly:
            raise ServerRefused(f"the server did not stop cleanly: {found.cluster_state}")
        return await self.wal_end(Lsn(0))

    async def wal_end(self, start: Lsn = Lsn(0)) -> Lsn:
        """End of the last valid record on this disk; see `stopped_position`."""
        return (await self.stopped_position(start)).lsn

    async def check_history(self, upstream: Upstream) -> history.HistoryCheck:
        """The local end of WAL is an ancestor of the upstream's position. Raises Diverged if it is not.

        Local first, then the upstream: so WAL that arrives meanwhile cannot look like a divergence. Raises WalGone
        if the upstream no longer holds the WAL needed next, ServerBroken if it is another cluster.
        """
        local = await self._local()

        async def tail_before(end: lineage.Position) -> history.WalTail:
            return await self._tail_before(end, local)

        return await history.check(self.config, local, tail_before, upstream)

    async def _local(self) -> history.Local:
        if await self._observer.find() is None:
            position = await self.stopped_position(Lsn(0))
            received = position.lsn
            identifier = (await control.read_control(self.bin_dir, self.config.data_dir)).file.system_identifier
        else:
            received = (await self.received()).lsn
            position = await self._running_position()
            identifier = (await self.query("SELECT system_identifier::text FROM pg_control_system()"))[0][0]
        files = await self._histories()
        segment = await self._segment_size()
        return history.Local(identifier, position, max(received, position.lsn), files, segment)

    async def _tail_before(self, end: lineage.Position, local: history.Local) -> history.WalTail:
        data_dir, segment = self.config.data_dir, local.segment
        later = {timeline for timeline in (*local.files, local.position.timeline) if timeline > end.timeline}
        last = await wal.last_byte_of(self.bin_dir, data_dir, end, segment=segment) if end.lsn else end.lsn
        end = lineage.Position(end.timeline, last)
        return await self.disk.run(lambda: history.read_tail(data_dir, end, segment, later), "read the last WAL")

    async def _segment_size(self) -> int:
        data_dir = self.config.data_dir
        return await self.disk.run(lambda: wal.segment_size(data_dir), "look at the WAL")

    async def _histories(self) -> Mapping[Timeline, lineage.History]:
        return await self.disk.run(lambda: history.read_files(self.config.data_dir), "read the timeline histories")

    async def _running_position(self) -> lineage.Position:
        """Timeline and last complete record of a running replica, replayed or not.

        What it received can end inside a record, which looks like a divergence from a member that was promoted
        where the last complete record ends.
        """
        timeline = (await self.received()).timeline
        replayed = (await self.query("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text"))[0][0]
        begins = max(Lsn.parse(replayed), lineage.start_of(timeline, await self._histories()))
        return await self._position(wal.Base(timeline, begins, False), Lsn(0))

    async def _held(self) -> lineage.Position:
        """Newest timeline and end of the WAL on the disk of a running replica, replayed or not.

        The server may be about to replay its way onto a timeline that it received on before its start.
        """
        # Timeline and position of one instant. The probe's timeline may be from before a crash, or from before replay
        # went on to the next.
        here = await source.identify_local(self.config)
        return await self._end_of_ways(lineage.ways_on(here, await self._histories())) or here

    async def _end_of_ways(self, ways: Sequence[lineage.Position]) -> lineage.Position | None:
        """The end of the WAL on the first of these ways that has any; None where none has."""
        for begins in ways:
            found = await self._position(wal.Base(begins.timeline, begins.lsn, False), Lsn(0))
            if found.lsn > begins.lsn:
                return found
        return None

    async def stopped_position(self, start: Lsn = Lsn(0)) -> lineage.Position:
        """Timeline and end of the WAL on this disk; the server must not run.

        `start`: a position that was written since this host booted, so that little is read; 0: unknown.
        """
        base = wal.base_of((await control.read_control(self.bin_dir, self.config.data_dir)).file)
        # Of a replica the control file knows the timeline of its last restart point; it may have received on a newer.
        *newer, _ = lineage.ways_on(lineage.Position(base.timeline, base.lsn), await self._histories())
        return await self._end_of_ways(newer) or await self._position(base, start)

    async def refuse_without_wal(self, found: ControlFile) -> None:
        """The stopped server's WAL suffices for it to serve reads without an upstream. Raises ServerRefused if not.

        What pg_rewind left, or a copy whose first start was cut short, needs WAL that only its source has.
        """
        timeline, needed = found.min_recovery_timeline, found.min_recovery_lsn
        began = max(found.checkpoint_lsn, lineage.start_of(timeline, await self._histories()))
        if needed <= began or self.config.parameters.get("restore_command"):
            return
        if (await self._position(wal.Base(timeline, began, False), Lsn(0))).lsn < needed:
            raise ServerRefused(f"needs WAL up to {needed} from a primary before it can serve anybody")

    async def _position(self, base: wal.Base, start: Lsn) -> lineage.Position:
        """The end of valid WAL on that timeline; `base` where there is none. Only the last segments are read, however
        many are complete.
        """
        data_dir = self.config.data_dir
        segment = await self._segment_size()
        last = await self.disk.run(
            lambda: wal.last_begun(data_dir, base.timeline, base.lsn, segment), "look at the WAL"
        )
        if last is None and not base.is_record:
            return lineage.Position(base.timeline, base.lsn)
        start = max(start, last or Lsn(0))
        begins = max(base.lsn, Lsn(max(0, start - wal.BACK_OFF)))
        present = await self.disk.run(
            lambda: wal.end_of_segments(data_dir, base.timeline, begins, segment), "look at the WAL"
        )
        end = await wal.wal_end(self.bin_dir, data_dir, base, start, segment=segment, present=present)
        return lineage.Position(base.timeline, end)
