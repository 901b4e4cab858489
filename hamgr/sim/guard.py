"""The guard of one host: kills the server's tree at the deadline, and starts the agent again when it is gone."""

from __future__ import annotations

from collections.abc import Callable

from hamgr.core.policy import KILL_BUDGET_S
from hamgr.core.server import Phase
from hamgr.sim.clock import HostClock
from hamgr.sim.ground import Ground
from hamgr.sim.mutants import Mutant
from hamgr.sim.page import Page
from hamgr.sim.postgres import Server
from hamgr.sim.process import Process

HEARTBEAT_FRESH_S = 1.5
"""A guard that was not heard of for so long counts as dead, and an agent as frozen."""

SENTRY_BEFORE_DEADLINE_S = 0.15
"""The session inside the server acts after the guard would have, and before the deadline."""


def kill_tree(ground: Ground, server: Server, *, by_mutant: bool = True) -> None:
    """No process of the server is left."""
    if by_mutant and ground.mutant is Mutant.POSTMASTER_ONLY:
        if server.is_alive:
            server.lose_postmaster(ground.draw(ground.pace.orphan))
        return
    if server.is_alive or server.orphans:
        server.stop(clean=False)


class Guard(Process):
    """Knows the page and the server's processes, and nothing of etcd."""

    def __init__(self, ground: Ground, clock: HostClock, page: Page, server: Server) -> None:
        super().__init__(ground)
        self._ground = ground
        self._clock = clock
        self._page = page
        self._server = server
        self._watches_until: float | None = None
        self.kills = 0
        self.start_agent: Callable[[], None] = _nothing
        page.on_deadline = self.watch

    def begin(self) -> None:
        """It runs: looks at the page, and has an agent."""
        self.launch()
        self._watches_until = None
        self.watch()

    def watch(self) -> None:
        """It will look again when the deadline, as it is now, comes near."""
        page = self._page
        if not page.armed or page.deadline is None or not self.is_running:
            return
        due = self._clock.moment_of(page.deadline - KILL_BUDGET_S)
        if self._watches_until is not None and self._watches_until <= due:
            return
        self._watches_until = due
        self.at(due + self._ground.draw(self._ground.pace.turn), self._look)

    def _look(self) -> None:
        self._watches_until = None
        page = self._page
        if not page.armed or page.deadline is None:
            return
        if self._clock.read(self._ground.now) < page.deadline - KILL_BUDGET_S:
            self.watch()
        elif self._ground.mutant is not Mutant.NO_GUARD:
            # Until the last of the tree is killed its backends run on.
            self.at(self._ground.later(self._ground.pace.kill), self._fence)

    def _fence(self) -> None:
        if not self._page.armed:
            return
        self._page.disarm()
        if self._server.is_alive or self._server.orphans:
            self._ground.say(self._server.name, "the guard kills the server: its deadline has come")
            self.kills += 1
            kill_tree(self._ground, self._server)

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since it was last heard of; without end when it is dead."""
        if not self.is_running:
            return float("inf")
        return 0.0 if self.frozen_at is None else self._ground.now - self.frozen_at

    @property
    def looks_alive(self) -> bool:
        """What the agent sees of it."""
        return self.heartbeat_age_s < HEARTBEAT_FRESH_S


class Sentry:
    """A session inside the server, for the case that the guard is gone or stands still: it ends its own server."""

    def __init__(self, ground: Ground, clock: HostClock, page: Page, server: Server) -> None:
        self._ground = ground
        self._clock = clock
        self._page = page
        self._server = server

    def watch(self, is_left_alone: Callable[[], bool]) -> None:
        """It looks when the deadline comes near; as a process of the server, which freezes and dies with it."""
        page, server = self._page, self._server
        if not page.armed or page.deadline is None or not server.is_running:
            return
        due = self._clock.moment_of(page.deadline - SENTRY_BEFORE_DEADLINE_S)
        server.at(due, lambda: self._look(is_left_alone))

    def _look(self, is_left_alone: Callable[[], bool]) -> None:
        page, server = self._page, self._server
        if not page.armed or page.deadline is None or not is_left_alone():
            return
        if self._clock.read(self._ground.now) < page.deadline - SENTRY_BEFORE_DEADLINE_S:
            self.watch(is_left_alone)
        elif server.has_sentry and server.phase is Phase.RUNNING and self._ground.mutant is not Mutant.NO_GUARD:
            self._ground.say(server.name, "the sentry ends the server: nobody else is left to do it")
            page.disarm()
            server.stop(clean=False)


def _nothing() -> None:
    return None
