"""Who starts and kills the server: the guard, seen from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hamgr.core.server import ServerIdentity


class Parent(Protocol):
    """The process that is the postmaster's parent; it outlives the agent."""

    async def spawn(self, argv: Sequence[str]) -> ServerIdentity:
        """The program runs in its own session when this returns. Raises ServerBroken if it cannot be executed."""

    async def kill_tree(self) -> int:
        """No process of the server is left when this returns; how many were killed."""
