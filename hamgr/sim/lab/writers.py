"""Clients of the lab: one pinned to each database writes all the time, so that a second leader cannot go unseen."""

from __future__ import annotations

from collections.abc import Mapping

from hamgr.sim.ground import Ground
from hamgr.sim.lab.database import Database, Stream
from hamgr.sim.process import Process
from hamgr.sim.wal import Commit

EVERY_S = 0.1
WRITE_BYTES = 1000


class Writers:
    """`acknowledged`: what clients were told is safe, in order. `quorum`: so many copies, the leader's own among
    them, before a commit is acknowledged; 1: asynchronous.
    """

    def __init__(self, ground: Ground, databases: Mapping[str, Database], stream: Stream, quorum: int) -> None:
        self._ground = ground
        self._databases = databases
        self._stream = stream
        self._quorum = quorum
        self._clock = Process(ground)
        self._numbers = 0
        self._waiting: dict[str, list[Commit]] = {name: [] for name in databases}
        self.acknowledged: list[Commit] = []
        stream.on_flushed = self._release

    @property
    def is_quorum(self) -> bool:
        """A commit needs other copies before it is acknowledged."""
        return self._quorum > 1

    def begin(self) -> None:
        """They write from now on."""
        self._clock.launch()
        self._turn()

    def _turn(self) -> None:
        for database in self._databases.values():
            if database.is_writable and database.is_awake:
                self._write(database)
        self._clock.at(self._ground.now + EVERY_S * (0.5 + self._ground.dice.random()), self._turn)

    def _write(self, database: Database) -> None:
        self._numbers += 1
        self._waiting[database.name].append(database.append(self._numbers, WRITE_BYTES))
        self._stream.spread(database)
        self._release(database)

    def forget(self, database: Database) -> None:
        """It is read-only: what it has not acknowledged it never will."""
        self._waiting[database.name].clear()

    def _release(self, database: Database) -> None:
        waiting = self._waiting[database.name]
        if not waiting or not database.is_writable:
            return
        safe_lsn = self._safe_lsn(database)
        while waiting and waiting[0].lsn <= safe_lsn:
            self.acknowledged.append(waiting.pop(0))

    def _safe_lsn(self, database: Database) -> int:
        """Up to where enough copies are."""
        if self._quorum <= 1:
            return database.lsn
        held = sorted(database.flushed.values(), reverse=True)
        return held[self._quorum - 2] if len(held) >= self._quorum - 1 else -1
