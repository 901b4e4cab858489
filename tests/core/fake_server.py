"""A PostgreSQL server reduced to what decisions depend on: timelines, WAL, recovery, life and death.

`log` is what the WAL says: the numbers of the writes in it, with their positions. Servers compare positions and
timelines only, as PostgreSQL does; the checker compares logs, and so sees what PostgreSQL would not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hamgr.core.server import ControlFile, DataDir, Phase, ServerIdentity, ServerView, Walsender
from hamgr.core.units import Instant, Lsn, Timeline

START_LSN = 0x5000000


@dataclass
class FakeServer:
    name: str
    data_dir: DataDir = DataDir.EMPTY
    problem: str = ""
    system_identifier: str = ""
    timeline: int = 1
    ends: dict[int, int] = field(default_factory=dict)
    """Earlier timelines of its history -> where each ended."""
    lsn: int = 0
    log: tuple[tuple[int, int], ...] = ()
    phase: Phase = Phase.STOPPED
    in_recovery: bool = False
    was_primary: bool = False
    was_clean: bool = True
    identity: ServerIdentity | None = None
    upstream: str = ""
    streaming: bool = False
    receives: bool = True
    """False: it streams, but nothing more arrives (a lagging replica)."""
    is_hung: bool = False
    replies: bool = True
    slots: dict[str, Lsn] = field(default_factory=dict)
    starts: int = 0

    @property
    def is_writable(self) -> bool:
        return self.phase is Phase.RUNNING and not self.in_recovery and not self.is_hung

    @property
    def is_alive(self) -> bool:
        return self.phase in (Phase.RUNNING, Phase.STARTING, Phase.STOPPING)

    def view(self, now: float, standbys: tuple[FakeServer, ...] = ()) -> ServerView:
        if self.is_alive:
            return self._alive_view(now, standbys)
        return ServerView(
            phase=Phase.STOPPED,
            data_dir=self.data_dir,
            problem=self.problem,
            probed_at=Instant(now),
            system_identifier=self.system_identifier,
            control=self._control() if self.data_dir is DataDir.VALID else None,
        )

    def _alive_view(self, now: float, standbys: tuple[FakeServer, ...]) -> ServerView:
        answers = not self.is_hung and self.phase is Phase.RUNNING
        senders = tuple(Walsender(s.name, "", "streaming", "async", 0, "replicator", Lsn(s.lsn)) for s in standbys)
        return ServerView(
            phase=self.phase,
            data_dir=self.data_dir,
            identity=self.identity,
            probed_at=Instant(now),
            answered=answers,
            system_identifier=self.system_identifier,
            in_recovery=self.in_recovery if answers or self.in_recovery else None,
            is_read_only=self.in_recovery,
            timeline=Timeline(self.timeline),
            written_lsn=Lsn(0 if self.in_recovery else self.lsn),
            received_lsn=Lsn(self.lsn if self.in_recovery else 0),
            replayed_lsn=Lsn(self.lsn if self.in_recovery else 0),
            upstream=self.upstream if self.in_recovery else "",
            streaming=self.streaming and self.in_recovery,
            walsenders=senders,
            slots=dict(self.slots),
            has_sentry=True,
        )

    def _control(self) -> ControlFile:
        states = {
            (True, True): "shut down",
            (True, False): "in production",
            (False, True): "shut down in recovery",
            (False, False): "in archive recovery",
        }
        state = states[self.was_primary, self.was_clean]
        position = Lsn(self.lsn)
        return ControlFile(self.system_identifier, state, Timeline(self.timeline), position, position)

    def initialise(self, system_identifier: str) -> None:
        self.data_dir = DataDir.VALID
        self.system_identifier = system_identifier
        self.timeline, self.ends, self.lsn, self.log = 1, {}, START_LSN, ()
        self.was_primary, self.was_clean = True, True

    def start(self, *, as_standby: bool, upstream: str = "") -> None:
        self.starts += 1
        self.identity = ServerIdentity(1000 + self.starts, self.starts)
        self.phase, self.in_recovery, self.upstream = Phase.RUNNING, as_standby, upstream
        self.was_primary, self.was_clean, self.is_hung, self.streaming = not as_standby, False, False, False

    def stop(self, *, clean: bool) -> None:
        self.phase, self.was_clean, self.identity = Phase.STOPPED, clean, None
        self.streaming = self.is_hung = False

    def promote(self) -> None:
        self.ends = {**self.ends, self.timeline: self.lsn}
        self.timeline += 1
        self.in_recovery, self.was_primary, self.streaming, self.upstream = False, True, False, ""

    def write(self, number: int, size: int) -> None:
        self.lsn += size
        self.log = (*self.log, (self.lsn, number))

    def is_ancestor_of(self, other: FakeServer) -> bool:
        """What PostgreSQL can tell: this end of WAL lies on the other's history, by timeline and position."""
        if self.timeline == other.timeline:
            return self.lsn <= other.lsn
        return self.timeline in other.ends and self.lsn <= other.ends[self.timeline]

    def copy_from(self, other: FakeServer) -> None:
        """Now the same as the other, as a stopped standby (base backup, or a rewind that worked)."""
        self.data_dir = DataDir.VALID
        self.system_identifier = other.system_identifier
        self.timeline, self.ends, self.lsn, self.log = other.timeline, dict(other.ends), other.lsn, other.log
        self.was_primary, self.was_clean = False, True
