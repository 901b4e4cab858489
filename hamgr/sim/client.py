"""The application: a writer pinned to every host that tries all the time, so that a second primary cannot go unseen."""

from __future__ import annotations

from hamgr.sim.ground import Ground
from hamgr.sim.network import CLIENT
from hamgr.sim.postgres import Server, Written
from hamgr.sim.process import Process

WRITE_BYTES = (64, 6000)


class Clients:
    """One request at a time on each host: the next is sent once the last was answered or its connection broke."""

    def __init__(self, ground: Ground, servers: dict[str, Server]) -> None:
        self._ground = ground
        self._servers = servers
        self._clock = Process(ground)
        self._pending: dict[str, Written] = {}
        self._numbers = 0
        self.acknowledged: list[Written] = []
        self.last_at = ground.now
        """When a write was last acknowledged."""
        self.every_s = 0.1
        self.sizes = WRITE_BYTES

    def begin(self) -> None:
        """They write from now on."""
        self._clock.launch()
        self._turn()

    def acknowledge(self, written: Written) -> None:
        """The server's answer; it may have been sent before a cut, and still arrive."""
        self.acknowledged.append(written)
        self.last_at = self._ground.now
        if self._pending.get(written.host) is written:
            del self._pending[written.host]

    def write_everywhere(self, size: int) -> None:
        """One write on every server that lets it."""
        for server in self._servers.values():
            if server.is_writable:
                server.commit(self._next(server), size)

    def _turn(self) -> None:
        for server in self._servers.values():
            self._try(server)
        self._clock.at(self._ground.now + self.every_s * (0.5 + self._ground.dice.random()), self._turn)

    def _try(self, server: Server) -> None:
        pending = self._pending.get(server.name)
        if pending is not None and pending in server.waiting:
            return
        if not (server.is_writable or self._would_write(server)) or not self._ground.network.connects(
            CLIENT, server.name
        ):
            return
        if self._ground.now < server.accepts_from:
            return
        written = self._next(server)
        size = int(self._ground.draw((float(self.sizes[0]), float(self.sizes[1]))))
        self._pending[server.name] = written
        server.commit(written, size)

    @staticmethod
    def _would_write(server: Server) -> bool:
        """A busy backend whose postmaster is gone goes on."""
        return server.orphans and server.may_acknowledge

    def _next(self, server: Server) -> Written:
        self._numbers += 1
        return Written(self._numbers, server.name, self._ground.now)

    def leave_in_flight(self, server: Server) -> None:
        """A request is on its way into a server that is about to stand still: it goes on when that does."""
        if server.is_writable:
            written = self._next(server)
            self._pending[server.name] = written
            server.at(self._ground.now, lambda: self._land(server, written))

    def _land(self, server: Server, written: Written) -> None:
        if server.may_acknowledge:
            server.commit(written, WRITE_BYTES[0])
