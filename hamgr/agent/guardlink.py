"""The agent's side of the guard: its commands over the socket, and the words of the shared page that are ours."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

from hamgr.core.server import ServerIdentity
from hamgr.core.units import Instant, Term
from hamgr.guard.layout import PAGE_NAME, SOCKET_NAME, SharedPage, boottime_ns, offset_bytes
from hamgr.postgres.errors import ServerBroken, ServerUnavailable
from hamgr.postgres.sentry import WatchedPage

REPLY_TIMEOUT_S = 5.0
MAX_DATAGRAM = 65536
HEARTBEAT_FRESH_S = 1.5
"""The guard beats at least every 0.5 s, so three beats are missing when it is called dead."""


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

    def __init__(self, runtime_dir: str, page: SharedPage) -> None:
        self._path = os.path.join(runtime_dir, SOCKET_NAME)
        self.page = page
        self.watched = watched_page(runtime_dir, page)
        """What a sentry in the server has to know of the page."""

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
        """The guard is known to live and to hold the deadline. Raises ServerUnavailable if it does not answer."""
        self.page.term = term
        self.page.lease_id = lease_id
        pid, ticks = (identity.pid, identity.start_ticks) if identity else (0, 0)
        self.page.arm(nanoseconds(deadline), pid, ticks)
        reply = await self._ask("ping")
        if reply[0] != "pong":
            raise ServerUnavailable("the guard does not answer")

    def name_server(self, identity: ServerIdentity) -> None:
        """The armed deadline binds that process from now on; until then it bound whatever runs in the directory."""
        self.page.name_postmaster(identity.pid, identity.start_ticks)

    def disarm(self) -> None:
        """No deadline binds the server: it is stopped, or a replica for certain."""
        self.page.disarm()
        self.page.term = 0

    def beat(self) -> None:
        """Tell the guard that the decision loop runs."""
        self.page.agent_heartbeat_ns = boottime_ns()

    @property
    def is_alive(self) -> bool:
        """The guard's heartbeat is fresh."""
        return boottime_ns() - self.page.guard_heartbeat_ns < HEARTBEAT_FRESH_S * 1e9

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
