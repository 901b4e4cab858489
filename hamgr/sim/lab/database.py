"""What is replicated: a server beside each member of a protocol, reduced to its log, its role and its life."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hamgr.sim.ground import Ground
from hamgr.sim.process import Process
from hamgr.sim.wal import Commit, contains

RETRY_S = 0.3
"""A standby that cannot reach its upstream tries again so soon."""


class Database(Process):
    """Its log outlives its process. `timeline`: the leadership under which the last of it was written."""

    def __init__(self, ground: Ground, name: str) -> None:
        super().__init__(ground)
        self._ground = ground
        self.name = name
        self.head: Commit | None = None
        self.timeline = 0
        self.is_writable = False
        self.upstream = ""
        self.flushed: dict[str, int] = {}
        """What each standby has told that it holds of this log, since this server became writable."""
        self._wanted = 0
        """Number of the last order; what an earlier one began comes to nothing."""
        self._leads = False
        self.on_writable: Callable[[Database], None] = _nothing
        self.on_read_only: Callable[[Database], None] = _nothing
        self.on_follow: Callable[[Database], None] = _nothing

    @property
    def lsn(self) -> int:
        """Where the log ends."""
        return 0 if self.head is None else self.head.lsn

    @property
    def position(self) -> tuple[int, int]:
        """What protocols compare: the leadership of the last entry, then the length. Source: Raft §5.4.1."""
        return self.timeline, self.lsn

    @property
    def leads(self) -> bool:
        """It is writable, or was told to become so."""
        return self._leads

    def append(self, number: int, size: int) -> Commit:
        """One more commit."""
        self.head = Commit(number, self.lsn + size, self.head)
        return self.head

    # -- roles -------------------------------------------------------------------------------------------------

    def promote(self, timeline: int) -> None:
        """It will be writable, under that leadership, as soon as its recovery has ended."""
        if self._leads:
            return
        self._leads, self.upstream = True, ""
        order = self._order()

        def done() -> None:
            if order == self._wanted:
                self.is_writable, self.timeline, self.flushed = True, timeline, {}
                self.on_writable(self)

        self.at(self._ground.later(self._ground.pace.promote), done)

    def demote(self) -> None:
        """It will be read-only as soon as it has stopped."""
        if not self._leads:
            return
        self._leads = False
        order = self._order()

        def done() -> None:
            if order == self._wanted:
                self._become_read_only()

        self.at(self._ground.later(self._ground.pace.stop), done)

    def follow(self, upstream: str) -> None:
        """It streams from there, once it is read-only; empty: from nobody."""
        if upstream == self.upstream:
            return
        self.upstream = upstream
        if upstream:
            self.on_follow(self)

    def lose(self) -> None:
        """Power off."""
        self._order()
        self._leads, self.upstream = False, ""
        self._become_read_only()
        self.end()

    def _order(self) -> int:
        self._wanted += 1
        return self._wanted

    def _become_read_only(self) -> None:
        if self.is_writable:
            self.is_writable = False
            self.on_read_only(self)


class Link:
    """One standby on its upstream. Never more than one shipment is on its way."""

    def __init__(self, ground: Ground, source: Database, standby: Database) -> None:
        self._ground = ground
        self.source = source
        self.standby = standby
        self.is_sending = False
        self.on_flushed: Callable[[Database], None] = _nothing

    @property
    def is_up(self) -> bool:
        """The standby still wants to stream from there, and may."""
        return self.standby.upstream == self.source.name and not self.standby.leads and not self.standby.is_writable

    def send(self) -> None:
        """What the standby lacks is on its way, all of it at once."""
        if self.is_sending or self.standby.upstream != self.source.name:
            return
        self.is_sending = True
        source, late_s = self.source, None
        if source.is_awake and self.standby.is_running:
            late_s = self._ground.network.hop_s(source.name, self.standby.name)
        if late_s is None or not self.is_up:
            self.standby.at(self._ground.now + RETRY_S, self._again)
            return
        head, timeline = source.head, source.timeline
        self.standby.at(self._ground.now + late_s, lambda: self._arrive(head, timeline))

    def _again(self) -> None:
        self.is_sending = False
        self.send()

    def _arrive(self, head: Commit | None, timeline: int) -> None:
        standby = self.standby
        if not self.is_up:
            self._again()
        elif contains(head, standby.head):
            self._take(head, timeline)
        else:
            # Its log has what the upstream's has not: that is thrown away. pg_rewind, or Raft's §5.3.
            standby.at(self._ground.later(self._ground.pace.rewind), lambda: self._rewound(head, timeline))

    def _rewound(self, head: Commit | None, timeline: int) -> None:
        if self.is_up:
            self._take(head, timeline)
        else:
            self._again()

    def _take(self, head: Commit | None, timeline: int) -> None:
        standby, source = self.standby, self.source
        standby.head, standby.timeline = head, timeline
        self.is_sending = False
        lsn = standby.lsn
        back_s = self._ground.network.hop_s(standby.name, source.name)
        if back_s is not None and source.is_writable:
            source.at(self._ground.now + back_s, lambda: self._told(lsn))
        if source.lsn != lsn:
            self.send()

    def _told(self, lsn: int) -> None:
        if self.is_up:
            self.source.flushed[self.standby.name] = lsn
            self.on_flushed(self.source)


class Stream:
    """All links among the databases of one cluster."""

    def __init__(self, ground: Ground, databases: dict[str, Database]) -> None:
        self._ground = ground
        self._databases = databases
        self._links: dict[str, Link] = {}
        self.on_flushed: Callable[[Database], None] = _nothing
        for database in databases.values():
            database.on_follow = self._follow

    def spread(self, source: Database) -> None:
        """There is more of its log."""
        for link in self._of(source):
            link.send()

    def _of(self, source: Database) -> Iterator[Link]:
        return (link for link in self._links.values() if link.source is source)

    def _follow(self, standby: Database) -> None:
        link = Link(self._ground, self._databases[standby.upstream], standby)
        link.on_flushed = self.on_flushed
        self._links[standby.name] = link
        link.send()


def _nothing(_database: Database) -> None:
    return None
