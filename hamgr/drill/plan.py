"""What is built for a drill, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hamgr.drill.accounts import Account


class Place(Enum):
    """Where the hosts of a drill are: on loopback, in network namespaces (root), in containers (root, Docker)."""

    LOOPBACK = "loopback"
    NETNS = "netns"
    COMPOSE = "compose"


class Via(Enum):
    """How the client that behaves like an application reaches the primary."""

    DIRECT = "direct"
    """It knows all hosts."""
    HAPROXY = "haproxy"
    PGBOUNCER = "pgbouncer"
    """Which has HAProxy behind it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build. `dcs`: further keys of bootstrap.dcs, as in the configuration file."""

    directory: Path
    """An empty directory of its own that the servers' account can reach."""
    account: Account | None
    place: Place = Place.LOOPBACK
    members: int = 3
    store_members: int = 3
    ttl_s: int = 5
    synchronous_mode: str = "off"
    """off, on or quorum."""
    disks: bool = False
    """Whether data, WAL and files elsewhere of each member lie on small disks of its own (root)."""
    clocks: bool = False
    """Whether each member has a wall clock of its own."""
    via: Via = Via.DIRECT
    """Other than direct only in containers: there are HAProxy and PgBouncer."""
    dcs: Mapping[str, Any] = field(default_factory=dict)
