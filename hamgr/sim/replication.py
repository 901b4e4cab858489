"""Streaming: which standby is connected to which server, what is on its way, and what has been flushed."""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.server import Phase
from hamgr.core.slotnames import slot_name
from hamgr.sim.ground import Ground, Violation
from hamgr.sim.pace import Range
from hamgr.sim.postgres import Server
from hamgr.sim.wal import Commit, contains


@dataclass(frozen=True, slots=True)
class Shipment:
    """WAL up to there, as it was sent."""

    timeline: int
    ends: dict[int, int]
    lsn: int
    head: Commit | None


@dataclass(slots=True, eq=False)
class Link:
    """A WAL receiver and its walsender."""

    standby: Server
    source: Server
    sending: bool = False
    stopped: bool = False
    """By the standby itself: what is still on its way is not taken any more."""
    is_mute: bool = False
    """The source's host is gone."""


class Replication:
    """All links of the world. `servers` by name."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.servers: dict[str, Server] = {}
        self._links: dict[str, Link] = {}
        self._seeking: dict[str, int] = {}

    def add(self, server: Server) -> None:
        """The server takes part."""
        self.servers[server.name] = server
        server.on_wal = self.spread
        server.on_last_wal = self.finish_stop
        server.on_end = self._ended

    def standbys_of(self, source: Server) -> list[Server]:
        """Who is connected to it."""
        return [link.standby for link in self._links.values() if link.source is source]

    def reachable(self, name: str, by: str) -> Server | None:
        """The server of that name if it would answer a connection from there."""
        server = self.servers.get(name)
        if server is None or server.phase is not Phase.RUNNING or server.is_frozen:
            return None
        return server if self._ground.network.connects(name, by) else None

    # -- connecting --------------------------------------------------------------------------------------------

    def seek(self, standby: Server) -> None:
        """The standby tries to reach its upstream, again and again, until it streams."""
        if self._seeking.get(standby.name) == standby.generation:
            return
        self._seeking[standby.name] = standby.generation
        self._try_soon(standby, self._ground.pace.hop)

    def _try_soon(self, standby: Server, span: Range) -> None:
        standby.at(self._ground.later(span), lambda: self._try(standby))

    def _try(self, standby: Server) -> None:
        if not standby.in_recovery or standby.streaming or not standby.upstream:
            self._seeking.pop(standby.name, None)
            return
        source = self.reachable(standby.upstream.partition(".")[0], standby.name)
        # A leader makes slots for members that have announced themselves; who was copied or rewound has none.
        has_slot = source is not None and slot_name(standby.name) in source.slots
        if source is None or source is standby or not has_slot or not standby.is_ancestor_of(source):
            self._try_soon(standby, self._ground.pace.connect)
            return
        self._seeking.pop(standby.name, None)
        link = Link(standby, source)
        self._links[standby.name] = link
        standby.streaming = True
        source.flushed[standby.name] = standby.lsn
        source.release()
        self._send(link)

    def stop_receiver(self, standby: Server) -> None:
        """No WAL receiver of that standby is left, and none is started until it is told of an upstream."""
        standby.upstream = ""
        link = self._links.get(standby.name)
        if link is not None:
            link.stopped = True
            self._drop(link)

    def follow(self, standby: Server, upstream: str) -> None:
        """The standby streams from there as soon as it can."""
        self.stop_receiver(standby)
        standby.upstream = upstream
        self.seek(standby)

    # -- what is on its way ------------------------------------------------------------------------------------

    def spread(self, source: Server) -> None:
        """There is more WAL: every connected standby is sent it."""
        for link in self._links.values():
            if link.source is source and not link.sending and not link.is_mute:
                self._send(link)

    def _send(self, link: Link) -> None:
        source, standby = link.source, link.standby
        hop_s = self._ground.network.hop_s(source.name, standby.name)
        if hop_s is None:
            self._give_up_later(link)
            return
        link.sending = True
        shipment = Shipment(source.timeline, source.ends, source.lsn, source.head)
        standby.at(self._ground.now + hop_s, lambda: self._arrive(link, shipment))

    def _arrive(self, link: Link, shipment: Shipment) -> None:
        link.sending = False
        standby = link.standby
        if link.stopped or not standby.in_recovery or not standby.is_alive:
            return
        # A WAL receiver fetches the history files first. Whoever has one takes that number for no timeline of its own.
        standby.newest_timeline = max(standby.newest_timeline, shipment.timeline)
        if not standby.receives:
            return
        if shipment.lsn >= standby.lsn:
            self._take(standby, link.source, shipment)
            self._report(link, shipment.lsn)
        if self._links.get(standby.name) is link and link.source.lsn > standby.lsn:
            self._send(link)

    def _take(self, standby: Server, source: Server, shipment: Shipment) -> None:
        if not contains(shipment.head, standby.head):
            raise Violation(f"{standby.name} streams from {source.name}, and their WAL differs unseen")
        is_new = (shipment.timeline, shipment.lsn) != (standby.timeline, standby.lsn)
        standby.take_wal(shipment.timeline, shipment.ends, shipment.lsn, shipment.head)
        # Two standbys may stream from each other while neither is promoted.
        if is_new:
            self.spread(standby)

    def _report(self, link: Link, lsn: int) -> None:
        source, name = link.source, link.standby.name
        if not source.sync.count:
            source.flushed[name] = lsn
            return
        back_s = self._ground.network.hop_s(name, source.name)
        if back_s is not None:
            source.at(self._ground.now + back_s, lambda: self._reported(link, lsn))

    def _reported(self, link: Link, lsn: int) -> None:
        source, name = link.source, link.standby.name
        if self._links.get(name) is link:
            source.flushed[name] = max(lsn, source.flushed.get(name, 0))
            source.release()

    # -- ends --------------------------------------------------------------------------------------------------

    def receives_again(self, standby: Server) -> None:
        """A standby that lagged takes WAL again."""
        standby.receives = True
        link = self._links.get(standby.name)
        if link is not None and not link.sending:
            self._send(link)

    def finish_stop(self, source: Server) -> None:
        """The walsenders of a server that shuts down have sent everything to whom they reach."""
        for link in [each for each in self._links.values() if each.source is source]:
            standby = link.standby
            is_open = self._ground.network.connects(source.name, standby.name)
            if is_open and standby.is_awake and standby.receives and standby.in_recovery:
                self._take(standby, source, Shipment(source.timeline, source.ends, source.lsn, source.head))

    def is_held_up(self, source: Server) -> bool:
        """A connected standby takes nothing and says nothing: a fast shutdown waits for it."""
        network = self._ground.network
        return any(each.is_frozen or not network.connects(source.name, each.name) for each in self.standbys_of(source))

    def look_at_cuts(self) -> None:
        """Connections across a cut are given up after a while."""
        for link in list(self._links.values()):
            if not self._ground.network.connects(link.source.name, link.standby.name):
                self._give_up_later(link)

    def went_silent(self, source: Server) -> None:
        """Its host is lost or it is frozen: nobody says that the connections are dead."""
        for link in list(self._links.values()):
            if link.source is source:
                self._give_up_later(link)

    def lost_host(self, server: Server) -> None:
        """Its host is gone: whoever streams from it hears nothing any more, and is told nothing."""
        for link in [each for each in self._links.values() if each.source is server]:
            link.is_mute = True
            self._give_up_later(link)

    def _ended(self, server: Server) -> None:
        own = self._links.get(server.name)
        if own is not None:
            own.stopped = True
            self._drop(own)
        for link in [each for each in self._links.values() if each.source is server and not each.is_mute]:
            self._drop(link)

    def _give_up_later(self, link: Link) -> None:
        self._ground.at(self._ground.later(self._ground.pace.silence), lambda: self._give_up(link))

    def _give_up(self, link: Link) -> None:
        source, standby = link.source, link.standby
        is_well = source.is_awake and self._ground.network.connects(source.name, standby.name)
        if self._links.get(standby.name) is not link:
            return
        if not is_well or link.is_mute:
            self._drop(link)
        elif not link.sending and source.lsn > standby.lsn:
            self._send(link)

    def _drop(self, link: Link) -> None:
        standby = link.standby
        if self._links.get(standby.name) is link:
            del self._links[standby.name]
            standby.streaming = False
            link.source.flushed.pop(standby.name, None)
            if standby.is_alive and standby.in_recovery and standby.upstream:
                self.seek(standby)
