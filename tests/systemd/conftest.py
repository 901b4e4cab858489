"""Hosts under systemd for the tests here; without Docker, or the base image, they are left out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.systemd.containers import Host, build_image, why_not
from tests.systemd.trio import Session, Traffic, Trio


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Trio]:
    """The cluster of this test run. With HAMGR_SYSTEMD_TRIO=NAME it stays, for the next run with that name."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    kept = os.environ.get("HAMGR_SYSTEMD_TRIO")
    tag = kept or f"hamgr-systemd-{os.getpid()}"
    directory = tmp_path_factory.mktemp("systemd")
    made = Trio(tag, tag, directory)
    try:
        if not made.is_there:
            build_image(tag, directory)
            made.set_up()
        yield made
    finally:
        if request.session.testsfailed:
            made.show()
        if not kept:
            made.close()
            subprocess.run(["docker", "rmi", tag], capture_output=True, check=False)


@pytest.fixture
def settled(trio: Trio) -> Trio:
    """One leads, two stream, all three are services that run."""
    for host in trio.hosts:
        if host.ask("systemctl is-active hamgr") != "active":
            host.ask("systemctl reset-failed hamgr; systemctl start hamgr")
    trio.wait_until_settled()
    return trio


@pytest.fixture
def leader(settled: Trio) -> Host:
    return settled.need_leader


@pytest.fixture
def traffic(settled: Trio) -> Traffic:
    """A client to be used in a `with`."""
    return Traffic(settled)


@pytest.fixture
def session(settled: Trio) -> Iterator[Session]:
    """A session on the leader."""
    with settled.connect(settled.need_leader) as connection:
        made = Session(connection)
        assert made.works()
        yield made
