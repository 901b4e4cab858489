"""The local server as it is now: process, data directory and SQL answers folded into one ServerView."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hamgr.core.server import NO_BIRTH, Birth, DataDir, Phase, ServerIdentity, ServerView
from hamgr.core.units import Instant, Timeline
from hamgr.postgres import births, control, process, source, sql, wal
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerBroken, ServerError, ServerRefused
from hamgr.postgres.knock import lets_nobody_in
from hamgr.postgres.probe import Answer, pending_restart, probe_sql
from hamgr.postgres.sql import Sql

KNOCK_S = 0.3
NOTE_S = 0.3
"""A probe waits no longer for what files say of the timeline: the disk may hang, and the server be well."""
NOTE_PAUSE_S = 5.0
"""Between two tries to read it: each may cost a probe NOTE_S."""
PHASES = {"starting": Phase.STARTING, "stopping": Phase.STOPPING}


class Observer:
    """Knows which process is the server and what it last said; asks no more than is needed to see it afresh."""

    def __init__(self, config: ServerConfig, bin_dir: Path, major: int, disk: Disk, sql: Sql) -> None:
        self._config, self._bin_dir, self._major = config, bin_dir, major
        self._disk, self._sql = disk, sql
        self.identity: ServerIdentity | None = None
        self.is_stopping = False
        self._ended_by_us = False
        self._phase = Phase.UNKNOWN
        self._timeline = Timeline(0)
        self._has_received = False
        self._loaded_at = ""
        self._birth: Birth | None = None
        self._ask_note_at = 0.0
        self._pending: Mapping[str, Mapping[str, str]] = {}

    def configure(self, config: ServerConfig) -> None:
        self._config = config

    def started(self, identity: ServerIdentity) -> None:
        """From now on that process is the server."""
        if identity != self.identity:
            self._timeline, self._has_received, self._birth = Timeline(0), False, None
            self._loaded_at, self._pending = "", {}
        self.identity, self._ended_by_us = identity, False

    def stopped_by_us(self) -> None:
        """The end of the server is no crash."""
        self._ended_by_us = True

    async def find(self) -> ServerIdentity | None:
        """The running server's process, adopted if it was not known. Raises ServerUnavailable on a hung disk."""
        if self.identity is not None and process.is_alive(self.identity):
            return self.identity
        found = await self._disk.run(lambda: process.find_running(self._config.data_dir), "look for the server")
        if found is not None:
            self.started(found)
        return found

    async def view(self, *, timeout_s: float) -> ServerView:
        """The server now. Never raises ServerError: what cannot be seen is unknown, and `problem` says why."""
        probed_at = Instant(time.clock_gettime(time.CLOCK_BOOTTIME))
        try:
            identity = await self.find()
            seen = await (self._down() if identity is None else self._up(identity, timeout_s))
        except ServerError as error:
            alive = self.identity if self.identity and process.is_alive(self.identity) else None
            phase = self._phase if alive else Phase.UNKNOWN
            seen = ServerView(phase=phase, identity=alive, problem=str(error))
        self._phase = seen.phase
        return replace(seen, probed_at=probed_at, major_version=self._major)

    async def _down(self) -> ServerView:
        data_dir = self._config.data_dir
        found = await self._disk.run(lambda: control.inspect(data_dir, self._major), "inspect the data directory")
        seen = ServerView(phase=Phase.STOPPED, data_dir=found.state, problem=found.problem)
        if found.state is not DataDir.VALID:
            return seen
        self._birth = None
        birth = await self._noted_birth()
        try:
            file = (await control.read_control(self._bin_dir, data_dir)).file
        except ServerBroken as error:
            problem = f"{error}; move the data directory away, and it is copied anew"
            return replace(seen, data_dir=DataDir.UNUSABLE, problem=problem)
        was_killed = not file.was_shut_down_cleanly and self.identity is None
        crashed = (self.identity is not None or was_killed) and not self._ended_by_us
        received_on = await self._newest_on_disk()
        return replace(
            seen,
            phase=Phase.CRASHED if crashed else Phase.STOPPED,
            control=file,
            system_identifier=file.system_identifier,
            timeline=Timeline(max(file.timeline, file.min_recovery_timeline, received_on)),
            birth=birth,
        )

    async def _up(self, identity: ServerIdentity, timeout_s: float) -> ServerView:
        try:
            answer = await probe_sql(self._sql, self._major, timeout_s=timeout_s)
        except ServerError as error:
            return await self._silent(identity, str(error))
        timeline = await self._timeline_of(answer)
        await self._refresh_pending(answer)
        return ServerView(
            phase=Phase.STOPPING if self.is_stopping else Phase.RUNNING,
            data_dir=DataDir.VALID,
            identity=identity,
            answered=True,
            system_identifier=answer.system_identifier,
            server_version=answer.server_version,
            in_recovery=answer.in_recovery,
            is_read_only=answer.is_read_only,
            timeline=timeline,
            birth=await self._noted_birth(),
            written_lsn=answer.written_lsn,
            received_lsn=answer.received_lsn,
            replayed_lsn=answer.replayed_lsn,
            replayed_at=answer.replayed_at,
            replay_paused=answer.replay_paused,
            upstream=answer.upstream,
            streaming=answer.streaming,
            last_message_age_s=answer.last_message_age_s,
            started_at=answer.started_at,
            pending_restart=bool(self._pending),
            pending_restart_reason=self._pending,
            walsenders=answer.walsenders,
            slots=answer.slots,
            sync_names=answer.sync_names,
            has_sentry=answer.has_sentry,
            makes_failover_slots=answer.makes_failover_slots,
            failover_slots=answer.failover_slots,
            former_slots=answer.former_slots,
            awaited_slots=answer.awaited_slots,
        )

    async def _noted_birth(self) -> Birth:
        """Read again only while the server does not run: only then do others write into its directory. One that cannot
        be read now is none: it proves nothing, and no server is called ill for it.
        """
        data_dir, now = self._config.data_dir, time.monotonic()
        if self._birth is None and now >= self._ask_note_at:
            try:
                self._birth = await self._disk.run(
                    lambda: births.read(data_dir), "read the note on the timeline", NOTE_S
                )
            except ServerError:
                self._ask_note_at = now + NOTE_PAUSE_S
        return self._birth or NO_BIRTH

    async def note_birth(self, birth: Birth) -> Birth:
        """What the data directory of the running server says from now on: this, or what it said of it before.

        Raises ServerRefused if no server runs.
        """
        if await self.find() is None:
            raise ServerRefused("the server does not run")
        data_dir = self._config.data_dir
        self._birth = await self._disk.run(lambda: births.note(data_dir, birth), "write the note on the timeline")
        return self._birth

    async def _silent(self, identity: ServerIdentity, problem: str) -> ServerView:
        data_dir = self._config.data_dir
        named = await self._disk.run(lambda: process.read_pid_file(data_dir), "read postmaster.pid")
        # The server removes the file when it leaves recovery, and it is only ever written while none runs.
        is_standby = await self._disk.run((data_dir / "standby.signal").exists, "look for standby.signal")
        if not process.is_alive(identity):
            return await self._down()
        phase = PHASES.get(named.status if named else "", Phase.RUNNING)
        if self.is_stopping:
            phase = Phase.STOPPING
        elif phase is Phase.RUNNING and await lets_nobody_in(self._config, sql.DATABASE, KNOCK_S):
            # After the crash of a backend it recovers, of which postmaster.pid does not tell.
            phase = Phase.STARTING
        in_recovery = True if is_standby else None
        return ServerView(
            phase=phase, data_dir=DataDir.VALID, identity=identity, in_recovery=in_recovery, problem=problem
        )

    @property
    def timeline(self) -> Timeline:
        """The timeline that the running server was on when last seen; 0: not known.

        Only once it was seen to receive: until then it may replay its way onto a newer one at any time.
        """
        return self._timeline if self._has_received else Timeline(0)

    async def _timeline_of(self, answer: Answer) -> Timeline:
        """A replica without WAL receiver: what it last received on, or what the server itself says."""
        if not answer.timeline_is_fresh:
            try:
                self._timeline = max(await self._known_timeline(), await self._newest_on_disk())
            except ServerError:
                # No replication connection to be had: the control file's may be too low, which loses an election
                # but no data. The next probe asks again.
                return max(self._timeline, answer.timeline)
        self._timeline = max(self._timeline, answer.timeline)
        self._has_received = self._has_received or answer.timeline_is_fresh
        return self._timeline

    async def _known_timeline(self) -> Timeline:
        return self._timeline or (await source.identify_local(self._config)).timeline

    async def _newest_on_disk(self) -> Timeline:
        """What was received by a WAL receiver that has ended, and maybe not replayed yet."""
        data_dir = self._config.data_dir
        return await self._disk.run(lambda: wal.newest_timeline(data_dir), "look at the WAL", NOTE_S)

    async def _refresh_pending(self, answer: Answer) -> None:
        if answer.loaded_at != self._loaded_at:
            with contextlib.suppress(ServerError):
                self._pending = await pending_restart(self._sql)
                self._loaded_at = answer.loaded_at
