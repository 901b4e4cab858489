"""The agent's side of the guard: its commands over the socket, and the words of the shared page that are ours."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Sequence

from hamgr.core.server import ServerIdentity
from hamgr.core.standing import GuardStanding, WatchdogState
from hamgr.core.units import Instant, Term
from hamgr.guard.commands import drop_command
from hamgr.guard.layout import (
    PAGE_NAME,
    PRIORITY_REALTIME,
    SOCKET_NAME,
    WATCHDOG_ACTIVE,
    WATCHDOG_FAILED,
    WATCHDOG_OFF,
    SharedPage,
    boottime_ns,
    offset_bytes,
)
from hamgr.postgres.errors import ServerBroken, ServerRefused, ServerUnavailable
from hamgr.postgres.sentry import WatchedPage

REPLY_TIMEOUT_S = 5.0
MAX_DATAGRAM = 65536
HEARTBEAT_FRESH_S = 1.5
"""The guard beats at least every 0.5 s, so three beats are missing when it is called dead."""

WATCHDOG_WORDS: dict[int, WatchdogState] = {WATCHDOG_OFF: "off", WATCHDOG_ACTIVE: "active", WATCHDOG_FAILED: "failed"}


def nanoseconds(instant: Instant) -> int:
    return int(instant * 1_000_000_000)


def watched_page(runtime_dir: str, page: SharedPage) -> WatchedPage:
    """The page as a sentry reads it: from the file, without our layout."""
    return WatchedPage(
        path=os.path.join(os.path.abspath(runtime_dir), PAGE_NAME),
        header=page.words[:3].tobytes(),
        arming_at=offset_bytes("arming"),
        fenced_arming_at=offset_bytes("fenced_arming"),
        deadline_at=offset_bytes("deadline_ns"),
    )


class GuardLink:
    """Parent of the server, for hamgr.postgres; arming, for promotion and adoption."""

    def __init__(self, runtime_dir: str, page: SharedPage, watchdog_required: str = "") -> None:
        """`watchdog_required`: path of the device without which this member must not lead; empty: there is none."""
        self._path = os.path.join(runtime_dir, SOCKET_NAME)
        self._watchdog_required = watchdog_required
        self.page = page
        self.page.agent_farewell = 0
        self.watched = watched_page(runtime_dir, page)
        """What a sentry in the server has to know of the page."""
        self._moving = threading.Lock()
        self._held_lease_id = page.lease_id
        """The lease on which the leader key was when it was last told to move, perhaps by the agent before this one,"""
        self._left_lease_id = 0
        """and the one from which it is known to have moved."""
        self._runtime_dir = runtime_dir
        self._shown: tuple[str, ServerIdentity] | None = None

    async def spawn(self, argv: Sequence[str]) -> ServerIdentity:
        """The guard has started that program. Raises ServerBroken with the guard's words if it could not."""
        reply = await self._ask("start", *argv)
        if reply[0] != "started":
            raise ServerBroken(f"the guard could not start the server: {' '.join(reply[1:])}")
        return ServerIdentity(int(reply[1]), int(reply[2]))

    async def kill_tree(self) -> int:
        """No process of the server is left. Raises ServerUnavailable if the guard does not say so in time."""
        reply = await self._ask("kill")
        if reply[0] != "killed":
            raise ServerUnavailable(f"the guard could not kill the server: {' '.join(reply[1:])}")
        return int(reply[1])

    async def arm(self, deadline: Instant, identity: ServerIdentity | None, term: Term, lease_id: int) -> None:
        """The guard is known to live and to hold the deadline, and a watchdog device that is required is active.

        While the leader key may be moving to another lease, the deadline is no later than that one lasts. Raises
        ServerUnavailable if the guard does not answer, ServerRefused without the device.
        """
        was_armed = self.page.armed
        self.page.term = term
        self.page.lease_id = lease_id
        pid, ticks = (identity.pid, identity.start_ticks) if identity else (0, 0)
        with self._moving:
            self.page.arm(self._limited(nanoseconds(deadline), lease_id), pid, ticks)
        reply = await self._ask("ping")
        if reply[0] != "pong":
            raise ServerUnavailable("the guard does not answer")
        if self._watchdog_required and self.page.watchdog != WATCHDOG_ACTIVE:
            if not was_armed:
                self.disarm()
            raise ServerRefused(
                f"the watchdog device {self._watchdog_required} is {self.standing.watchdog}, and it is required",
                hint="see the guard's log; or set watchdog.mode to automatic",
            )

    def watchdog_problem(self) -> str:
        """Why this member, which requires a watchdog device, cannot have it; empty if nothing is known against it."""
        device = self._watchdog_required
        if not device or self.page.watchdog == WATCHDOG_ACTIVE:
            return ""
        if not os.path.exists(device):
            return f"the watchdog device {device} is required and is not there"
        if not os.access(device, os.W_OK):
            return f"the watchdog device {device} is required and may not be written"
        return ""

    def name_server(self, identity: ServerIdentity) -> None:
        """The armed deadline binds that process from now on; until then it bound whatever runs in the directory."""
        self.page.name_postmaster(identity.pid, identity.start_ticks)

    def disarm(self) -> None:
        """No deadline binds the server: it is stopped, or a replica for certain."""
        self.page.disarm()
        self.page.term = 0

    def bid_farewell(self, exit_status: int) -> None:
        """A guard that adopted this process, and cannot wait for it, knows how it ends: with that status, right now."""
        self.page.agent_farewell = exit_status + 1

    def extend(self, deadline: Instant, term: Term) -> bool:
        """An armed deadline of that term is not before this one; False if none is armed for it. From any thread.

        Renewals and peer leases both move it on, each in a thread of its own, and neither moves it back.
        """
        with self._moving:
            return self._extend(nanoseconds(deadline), term)

    def extend_by_lease(self, deadline: Instant, term: Term, lease_id: int) -> bool:
        """As `extend`, by a renewal of that lease, which the page names then: an agent's successor adopts it.

        While the leader key may be on another lease, which is not renewed, it goes no further than that one lasts. By
        the lease that the key has left it goes nowhere: that renewal was under way when the key moved.
        """
        page, deadline_ns = self.page, nanoseconds(deadline)
        with self._moving:
            if lease_id == self._left_lease_id:
                return page.armed and page.term == term
            is_armed = self._extend(self._limited(deadline_ns, lease_id), term)
            if is_armed:
                page.lease_id = lease_id
            return is_armed

    def _limited(self, deadline_ns: int, lease_id: int) -> int:
        """That deadline by that lease, or, if sooner, the one of another lease to which the key is being moved."""
        page = self.page
        return deadline_ns if page.tried_lease_id in (0, lease_id) else min(deadline_ns, page.tried_deadline_ns)

    def _extend(self, deadline_ns: int, term: Term) -> bool:
        if not self.page.armed or self.page.term != term:
            return False
        self.page.deadline_ns = max(self.page.deadline_ns, deadline_ns)
        return True

    def limit(self, deadline: Instant, lease_id: int) -> None:
        """The leader key may move to that lease from now on: the server is bound by whichever of both ends first.

        To be called before the transaction is sent. The guard looks at the page more often than any lease is short.
        """
        page, deadline_ns = self.page, nanoseconds(deadline)
        with self._moving:
            self._held_lease_id = page.lease_id
            page.tried_deadline_ns = deadline_ns
            page.tried_lease_id = lease_id
            page.deadline_ns = min(page.deadline_ns, deadline_ns)

    def lift_limit(self, lease_id: int) -> None:
        """It is known on which lease the leader key is, if on any: this member goes by that one alone again."""
        page = self.page
        with self._moving:
            if page.tried_lease_id == lease_id:
                self._left_lease_id, page.lease_id = self._held_lease_id, lease_id
            page.tried_lease_id = 0

    def note_lease(self, lease_id: int, deadline: Instant) -> bool:
        """Unarmed, the page says which lease is in force, for an agent's successor; False if it is armed."""
        with self._moving:
            if self.page.armed:
                return False
            self.page.lease_id, self.page.deadline_ns = lease_id, nanoseconds(deadline)
            return True

    def name_lease(self, lease_id: int) -> None:
        """The key hangs on that lease from now on: by it an agent's successor leads on."""
        self.page.lease_id = lease_id

    def forget_term(self) -> None:
        """The lead is given away: an agent's successor does not lead on by what the page says. The deadline stands."""
        self.page.term = 0

    def note_promise(self, until: Instant) -> None:
        """Whatever becomes of this agent, its successor knows that it must not campaign before."""
        self.page.promised_until_ns = max(self.page.promised_until_ns, nanoseconds(until))

    def beat(self) -> None:
        """Tell the guard that this process runs."""
        self.page.agent_heartbeat_ns = boottime_ns()

    def show(self, status: str) -> None:
        """The service manager, if there is one, has that line for people; of each guard, once. Never blocks."""
        showing = (status, self.guard)
        if self.page.supervised and showing != self._shown and drop_command(self._runtime_dir, "status", status):
            self._shown = showing

    @property
    def is_alive(self) -> bool:
        """The guard's heartbeat is fresh."""
        return boottime_ns() - self.page.guard_heartbeat_ns < HEARTBEAT_FRESH_S * 1e9

    @property
    def guard(self) -> ServerIdentity:
        """The process that is, or was last, the guard."""
        return ServerIdentity(self.page.guard_pid, self.page.guard_start_ticks)

    @property
    def standing(self) -> GuardStanding:
        """What the guard says of itself, as of now."""
        page = self.page
        return GuardStanding(
            is_alive=self.is_alive,
            pid=page.guard_pid,
            is_stand_in=bool(page.stand_in),
            is_armed=bool(page.armed),
            memory_locked=bool(page.memory_locked),
            realtime=page.priority == PRIORITY_REALTIME,
            watchdog=WATCHDOG_WORDS[page.watchdog],
            agent_restarts=page.agent_restarts,
        )

    async def _ask(self, *words: str) -> list[str]:
        """One command, one reply, on a connection of its own; notices of exits in between are passed over."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as connection:
            try:
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    await loop.sock_connect(connection, self._path)
                    await loop.sock_sendall(connection, "\0".join(words).encode())
                    while True:
                        reply = (await loop.sock_recv(connection, MAX_DATAGRAM)).decode().split("\0")
                        if not reply[0]:
                            raise ConnectionResetError("it closed the connection")
                        if reply[0] != "exited":
                            return reply
            except (OSError, TimeoutError) as error:
                raise ServerUnavailable(f"the guard does not answer: {error}") from error
