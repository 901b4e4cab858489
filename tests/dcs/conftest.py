"""Fixtures: real etcd of one and three members."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.dcs.keys import ScopeKeys
from tests.dcs.etcd_members import EtcdCluster, started


@pytest.fixture(scope="session")
def shared_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One member, for tests that leave it as it is and use a scope of their own."""
    cluster = started(EtcdCluster.of(1, tmp_path_factory.mktemp("etcd")))
    yield cluster
    cluster.kill()


@pytest.fixture
def one_etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    """One member that the test may maltreat."""
    cluster = started(EtcdCluster.of(1, tmp_path))
    yield cluster
    cluster.kill()


@pytest.fixture
def three_etcds(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Three members that the test may maltreat."""
    cluster = started(EtcdCluster.of(3, tmp_path))
    yield cluster
    cluster.kill()


@pytest.fixture
def keys(request: pytest.FixtureRequest) -> ScopeKeys:
    """A scope that no other test uses."""
    return ScopeKeys.of(request.node.name)
