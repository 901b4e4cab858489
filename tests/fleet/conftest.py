"""A real etcd of one member, for light agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.drill.accounts import own
from hamgr.drill.hosts import loopback_hosts
from hamgr.drill.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    hosts = loopback_hosts(["etcd1"], tmp_path / "etcd", None)
    try:
        made = Store(list(hosts.values()), own(tmp_path / "logs", None), set())
        made.start()
        yield made
    finally:
        for host in hosts.values():
            host.close()
