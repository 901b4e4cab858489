"""The vital signs of the local server, each checked once per loop_wait and judged by a deadline of its own.

A check that hangs delays no other, keeps its thread or connection, and has no second one beside it: its illness is
told again at each turn until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hamgr.agent.clock import now
from hamgr.agent.sensors import first_of
from hamgr.core.actions import Clone, InitDb, Reinitialize, Rewind
from hamgr.core.facts import Fact, VitalChecked
from hamgr.core.health import is_ending
from hamgr.core.scene import Scene
from hamgr.core.server import DataDir, ServerIdentity, Vital
from hamgr.core.state import State
from hamgr.core.units import Instant
from hamgr.postgres.health import Door
from hamgr.postgres.process import is_alive
from hamgr.postgres.server import LocalServer
from hamgr.postgres.threads import in_own_thread

T = TypeVar("T")

SLICES = 10
LONGEST_STRETCH = 3.0
SHORTEST_PAUSE_S = 0.05
REMAKING = (InitDb, Clone, Rewind, Reinitialize)
"""While the data directory is being made nothing of ours may be written into it."""


class VitalSensor:
    """Posts one VitalChecked at the end (or the deadline) of each check."""

    def __init__(self, server: LocalServer, post: Callable[[Fact], None], state: Callable[[], State]) -> None:
        self._server = server
        self._post = post
        self._state = state
        self._recovering_since: Instant | None = None
        self._commit: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Check for ever."""
        await first_of(
            self._again_and_again(self._check_connection),
            self._again_and_again(lambda: self._check_disk(Vital.DATA_DISK, self._server.write_data_disk)),
            self._again_and_again(lambda: self._check_disk(Vital.WAL_DISK, self._server.write_wal_disk)),
        )

    async def _again_and_again(self, check: Callable[[], Awaitable[None]]) -> None:
        while True:
            began_at = now()
            await check()
            await asyncio.sleep(max(SHORTEST_PAUSE_S, self._state().policy.loop_wait_s - (now() - began_at)))

    # -- disks -------------------------------------------------------------------------------------------------

    async def _check_disk(self, vital: Vital, write: Callable[[], str | None]) -> None:
        if not self._has_data_dir():
            return
        began_at, timeout_s = now(), self._state().policy.probe_disk_timeout_s
        check = in_own_thread(write)
        # A thread cannot be called back: until it ends there is no other.
        has_ended = await self._until_ended(vital, began_at, check, timeout_s, self._has_data_dir, may_be_left=False)
        if not has_ended or not self._has_data_dir():
            return
        with contextlib.suppress(OSError):
            # No thread is to be had: that says nothing of the disk, and of nothing else that ends here.
            self._tell(vital, began_at, check.result())

    def _has_data_dir(self) -> bool:
        """And it is ours: before the cluster was read nothing tells that of a directory without a server."""
        state = self._state()
        is_there = state.server.is_alive or (state.server.data_dir is DataDir.VALID and state.cluster is not None)
        is_ours = not Scene(state, now()).is_foreign
        return is_there and is_ours and not any(state.running(action) for action in REMAKING)

    # -- connection and commit ---------------------------------------------------------------------------------

    async def _check_connection(self) -> None:
        identity = self._primary()
        if self._commit is not None and self._commit.done():
            self._commit.result()
        if identity is None:
            self._recovering_since = None
            return
        began_at, timeout_s = now(), self._state().policy.probe_connection_timeout_s
        check = asyncio.ensure_future(self._server.open_door(timeout_s))
        try:
            if await self._until_ended(Vital.CONNECTION, began_at, check, timeout_s, lambda: self._is(identity)):
                await self._enter(identity, began_at, check.result())
        finally:
            check.cancel()

    async def _enter(self, identity: ServerIdentity, began_at: Instant, door: Door) -> None:
        """Tell how the door was answered, and go on to a commit unless one is under way still."""
        is_busy = self._commit is not None and not self._commit.done()
        if self._is(identity):
            self._tell(Vital.CONNECTION, began_at, self._judged(door, began_at))
            if not (is_busy or door.is_recovering or door.problem):
                self._commit = asyncio.create_task(self._check_commit(identity, door))
                return
        if door.connection is not None:
            await door.connection.close()

    def _judged(self, door: Door, began_at: Instant) -> str:
        """A server that recovers is not ill before it has been at it for primary_start_timeout."""
        if not door.is_recovering:
            self._recovering_since = None
            return door.problem
        if self._recovering_since is None:
            self._recovering_since = began_at
        limit_s = self._state().policy.primary_start_timeout_s
        is_late = now() - self._recovering_since > limit_s
        return f"it has let nobody in for longer than primary_start_timeout, {limit_s:g} s" if is_late else ""

    async def _check_commit(self, identity: ServerIdentity, door: Door) -> None:
        began_at, timeout_s = now(), self._state().policy.probe_commit_timeout_s
        check = asyncio.ensure_future(self._server.commit(door))
        try:
            has_ended = await self._until_ended(Vital.COMMIT, began_at, check, timeout_s, lambda: self._is(identity))
            if has_ended and self._is(identity):
                self._tell(Vital.COMMIT, began_at, check.result())
        finally:
            check.cancel()

    def _is(self, identity: ServerIdentity) -> bool:
        return self._primary() == identity

    def _primary(self) -> ServerIdentity | None:
        """The process of a live server that is not known to be in recovery, and is not being ended by us."""
        state = self._state()
        server = state.server
        if not server.is_alive or server.in_recovery is True or server.identity is None or is_ending(state):
            return None
        # Its end is told by the pidfd; nothing that it does not answer any more is an illness.
        return server.identity if is_alive(server.identity) else None

    # -- judging -----------------------------------------------------------------------------------------------

    def _tell(self, vital: Vital, began_at: Instant, problem: str | None) -> None:
        if problem is not None:
            self._post(VitalChecked(vital, began_at, problem))

    async def _until_ended(
        self,
        vital: Vital,
        began_at: Instant,
        check: asyncio.Future[T],
        timeout_s: float,
        concerns: Callable[[], bool],
        *,
        may_be_left: bool = True,
    ) -> bool:
        """The check has ended: within its deadline, or after its illness was told until it did. False if it concerns
        nobody any more.

        Unless `may_be_left` it has ended when this returns, whomever it concerns.
        """
        if await ends_within(check, timeout_s):
            return True
        while not check.done() and (concerns() or not may_be_left):
            if concerns():
                self._post(VitalChecked(vital, began_at, f"no answer within {timeout_s:g} s", is_hung=True))
            await asyncio.wait({check}, timeout=self._state().policy.loop_wait_s)
        return check.done() and concerns()


async def ends_within(check: asyncio.Future[T], timeout_s: float) -> bool:
    """The check has ended before it had `timeout_s`; time in which this very process did not get to run is not counted.

    Else a starved agent would call a server ill whose answer it had only not read yet.
    """
    slice_s, give_up_at = timeout_s / SLICES, now() + timeout_s * LONGEST_STRETCH
    for _ in range(SLICES):
        began_at = now()
        await asyncio.wait({check}, timeout=slice_s)
        while now() - began_at > 2 * slice_s and not check.done() and now() < give_up_at:
            # Woken late: what was lost is given back, in slices that are measured themselves.
            began_at = now()
            await asyncio.wait({check}, timeout=slice_s)
        if check.done():
            return True
    # What ended at the last moment has been told to this loop, which has yet to take it in.
    await asyncio.sleep(0)
    return check.done()
