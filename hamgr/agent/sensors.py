"""Where facts come from: the server's probe and pidfd, the watch on etcd, the guard's heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hamgr.agent.clock import now, wall
from hamgr.agent.guardlink import GuardLink
from hamgr.core.facts import ClusterSeen, Fact, GuardSeen, Probed, ServerExited, StoreFailed, StoreReset, WallClockSeen
from hamgr.core.server import ServerIdentity
from hamgr.core.state import State
from hamgr.dcs.errors import StoreError
from hamgr.dcs.ops import Gap, Interrupted
from hamgr.dcs.store import Store
from hamgr.postgres.process import wait_until_exit
from hamgr.postgres.server import LocalServer

RETRY_S = 0.2
LONGEST_RETRY_S = 0.5
"""The leader key may have expired meanwhile: the return of etcd is noticed at once."""
WALL_STEP_S = 0.1


class ServerSensor:
    """Looks at the server at every tick and when asked; its end is told by pidfd, in milliseconds."""

    def __init__(self, server: LocalServer, post: Callable[[Fact], None], state: Callable[[], State]) -> None:
        self._server = server
        self._post = post
        self._state = state
        self._watched: ServerIdentity | None = None
        self._watch: asyncio.Task[None] | None = None
        self._soon: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def probe(self) -> None:
        """Look now, and post what is seen."""
        async with self._lock:
            seen = await self._server.probe()
            if seen.identity is not None and seen.identity != self._watched:
                self._watch_exit(seen.identity)
            self._post(Probed(seen))

    def probe_soon(self) -> None:
        """Look beside what goes on. An error in it ends the sensor's own loop at its next turn."""
        self._soon = asyncio.create_task(self.probe())

    async def run(self) -> None:
        """Probe once every loop_wait, for ever."""
        while True:
            began_at = now()
            await self.probe()
            await asyncio.sleep(max(0.05, self._state().policy.loop_wait_s - (now() - began_at)))

    def _watch_exit(self, identity: ServerIdentity) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watched = identity
        self._watch = asyncio.create_task(self._post_exit(identity))

    async def _post_exit(self, identity: ServerIdentity) -> None:
        await wait_until_exit(identity)
        self._post(ServerExited(identity, now()))


async def watch_store(
    store: Store, post: Callable[[Fact], None], idle_s: Callable[[], float], known_revision: Callable[[], int]
) -> None:
    """Post every change of the cluster's keys, for ever. After each interruption all keys are read again: what is
    then older than what was known before is told as such.
    """
    pause_s = RETRY_S
    while True:
        try:
            known = known_revision()
            view = await store.read()
            post(ClusterSeen(view) if view.revision >= known else StoreReset(view))
            pause_s = RETRY_S
            async for change in store.watch(view.revision, idle_s()):
                match change:
                    case Gap() | Interrupted():
                        # Resumed, the watch would not show that etcd was restored meanwhile.
                        await asyncio.sleep(RETRY_S)
                        break
                    case _:
                        post(ClusterSeen(change))
        except StoreError as error:
            post(StoreFailed(now(), str(error)))
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_RETRY_S, pause_s * 2)


async def watch_guard(link: GuardLink, post: Callable[[Fact], None], beat_every_s: float) -> None:
    """Beat for the guard from the decision loop's thread; post when the guard's own beat stops or returns, when a
    watchdog device that is required goes or comes, and when the wall clock has stepped.
    """
    seen = GuardSeen(alive=True)
    ahead_seen_s = 0.0
    while True:
        link.beat()
        ahead_s = wall() - now()
        if abs(ahead_s - ahead_seen_s) > WALL_STEP_S:
            ahead_seen_s = ahead_s
            post(WallClockSeen(ahead_s))
        standing = GuardSeen(link.is_alive, link.watchdog_problem())
        if standing != seen:
            seen = standing
            post(standing)
        await asyncio.sleep(beat_every_s)


async def first_of(*tasks: Awaitable[object]) -> None:
    """Return (or raise) as soon as one of them ends; the others are cancelled."""
    futures = [asyncio.ensure_future(task) for task in tasks]
    try:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()
    finally:
        for future in futures:
            future.cancel()
