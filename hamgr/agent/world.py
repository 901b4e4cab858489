"""What actions are carried out on: the server, the store, the guard, and the way back to the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hamgr.agent.front import Front
from hamgr.agent.guardlink import GuardLink
from hamgr.agent.memory import Memory
from hamgr.agent.peers import Peers
from hamgr.core.facts import Fact
from hamgr.core.pipeline import Record
from hamgr.core.state import State
from hamgr.dcs.store import Store
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.server import LocalServer


@dataclass(slots=True)
class World:
    """Handed to every action. `state` is read afresh at each use: an action may run long."""

    store: Store
    server: LocalServer
    link: GuardLink
    peers: Peers
    memory: Memory
    state: Callable[[], State]
    post: Callable[[Fact], None]
    probe: Callable[[], Any]
    """Coroutine function: look at the server now and post what is seen."""
    probe_soon: Callable[[], None]
    """Have that done beside what goes on."""
    recorded: Callable[[Record], None]
    seed_config: Callable[[], Mapping[str, Any]]
    """What a cluster that is not entered in etcd is to have as dynamic configuration."""
    wanted: Callable[[], ServerConfig]
    """The server's configuration as file and dynamic configuration want it now."""
    front: Front = field(default_factory=Front)
    refused: dict[int, str] = field(default_factory=dict)
    """Requests that were refused, by revision, for those who wait for their end."""
    order_ends: dict[int, Callable[[bool, str], None]] = field(default_factory=dict)
    """Who waits for the end of an operator's order."""

    @property
    def me(self) -> str:
        return self.state().me.name

    @property
    def lease_id(self) -> int:
        return self.state().lease.lease_id
