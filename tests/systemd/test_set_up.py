"""README.md, "Set up a host", followed to the letter."""

from __future__ import annotations

import pytest

from tests.systemd.trio import Trio

pytestmark = pytest.mark.cluster


def test_three_hosts_set_up_by_the_readme_are_a_cluster(settled: Trio) -> None:
    listed = settled.hosts[0].run("hamgr list")
    print(listed)
    assert sum("streaming" in line for line in listed.splitlines()) == 2
    for host in settled.hosts:
        assert host.name in listed
