"""Hosts and plain servers for the drill's own tests."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.drill.accounts import server_account
from hamgr.drill.hosts import Host, loopback_hosts
from tests.drill.plainserver import PlainServer


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that the servers' account can pass through; pytest's own are private to root."""
    base = Path("/tmp") / f"hamgr-drill-test-{os.getpid()}-{time.monotonic_ns()}"
    base.mkdir(mode=0o755)
    yield base
    os.system(f"rm -rf '{base}'")


@pytest.fixture
def hosts(room: Path) -> Iterator[dict[str, Host]]:
    """Two hosts for servers and one for the client, on loopback."""
    made = loopback_hosts(["a", "b", "client"], room, server_account())
    yield made
    for host in made.values():
        host.close()


@pytest.fixture
def server(hosts: dict[str, Host], room: Path) -> PlainServer:
    """A running server on host a."""
    plain = PlainServer(hosts["a"], room)
    plain.start()
    return plain


@pytest.fixture
def other_server(hosts: dict[str, Host], room: Path) -> PlainServer:
    """A running server on host b which knows nothing of the other one."""
    plain = PlainServer(hosts["b"], room)
    plain.start()
    return plain
