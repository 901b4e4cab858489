"""What each manager is given, and how its own word on itself is read."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hamgr.bench.managers.etcd import ETCD_HOSTS, sample
from hamgr.bench.managers.hamgr import Hamgr
from hamgr.bench.managers.manager import NODES, Ground, Node
from hamgr.bench.managers.patroni import Patroni, unrest_among
from hamgr.bench.variants import VARIANTS
from hamgr.drill.accounts import own, server_account
from hamgr.drill.errors import DrillError
from hamgr.drill.freezing import state_of
from hamgr.drill.hosts import loopback_hosts
from hamgr.settings.load import load


@pytest.fixture
def ground() -> Iterator[Ground]:
    room = Path("/tmp") / f"hamgr-bench-test-{os.getpid()}-{time.monotonic_ns()}"
    room.mkdir(mode=0o755)
    account = server_account()
    hosts = loopback_hosts([*NODES, *ETCD_HOSTS], own(room / "hosts", None), account)
    yield Ground(hosts, own(room / "logs", None), account, "secret", {})
    for host in hosts.values():
        host.close()
    os.system(f"rm -rf '{room}'")


@pytest.fixture
def patroni(ground: Ground) -> Path:
    """A program that is asked for its version before anything is made for it."""
    program = ground.logs.parent / "patroni"
    program.write_text("#!/bin/sh\necho patroni 4.1.5\n")
    program.chmod(0o755)
    return program


def file_of(node: Node, name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((node.host.directory / name).read_text()))


def test_hamgr_takes_its_file_without_a_warning(ground: Ground) -> None:
    made = Hamgr(ground, {"ttl": 2})
    loaded = load(made.nodes[0].host.directory / "hamgr.yml", {})
    assert loaded.warnings == ()
    assert loaded.seed.policy().ttl_s == 2


def test_hamgr_and_patroni_differ_by_the_keys_that_only_one_of_them_has(ground: Ground, patroni: Path) -> None:
    ours = file_of(Hamgr(ground, {"ttl": 20}).nodes[1], "hamgr.yml")
    theirs = file_of(Patroni(ground, {"ttl": 20}, patroni).nodes[1], "patroni.yml")
    assert ours.keys() ^ theirs.keys() == {"guard", "watchdog"}
    assert ours["bootstrap"] == theirs["bootstrap"]
    assert ours["postgresql"].keys() == theirs["postgresql"].keys()
    assert ours["postgresql"]["pg_hba"] == theirs["postgresql"]["pg_hba"]


def test_patroni_gets_what_the_variant_says_and_only_strings_for_initdb(ground: Ground, patroni: Path) -> None:
    variant = VARIANTS["patroni-tight-failsafe"]
    made = variant.manager(ground, patroni)
    bootstrap = file_of(made.nodes[0], "patroni.yml")["bootstrap"]
    assert variant.dynamic is not None
    assert bootstrap["dcs"].items() >= variant.dynamic.items()
    assert bootstrap["dcs"]["failsafe_mode"] is True
    assert all(isinstance(o, str) or all(isinstance(v, str) for v in o.values()) for o in bootstrap["initdb"])


def test_files_with_passwords_are_for_the_servers_account_alone(ground: Ground, patroni: Path) -> None:
    for manager, name in ((Hamgr(ground, {}), "hamgr.yml"), (Patroni(ground, {}, patroni), "patroni.yml")):
        for node in manager.nodes:
            assert (node.host.directory / name).stat().st_mode & 0o077 == 0


def test_a_patroni_that_cannot_run_is_refused_before_anything_is_started(ground: Ground) -> None:
    with pytest.raises(DrillError, match="scripts/bench installs Patroni"):
        Patroni(ground, {}, Path("/no/such/patroni"))


LEADER = {"name": "db1", "role": "leader", "state": "running"}
REPLICAS = [{"name": name, "role": "replica", "state": "streaming"} for name in ("db2", "db3")]


def test_a_leader_and_two_streaming_replicas_have_nothing_to_do() -> None:
    assert unrest_among([LEADER, *REPLICAS]) == ""


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([LEADER, REPLICAS[0]], "2 members"),
        ([LEADER, REPLICAS[0], {**REPLICAS[1], "state": "running"}], "db3 is replica, running"),
        ([{**LEADER, "state": "starting"}, *REPLICAS], "db1 is leader, starting"),
        ([*REPLICAS, {**REPLICAS[0], "name": "db1"}], "0 of them leaders"),
        ([{**LEADER, "role": "standby_leader"}, *REPLICAS], "db1 is standby_leader"),
    ],
)
def test_anything_else_is_unrest(members: list[dict[str, Any]], word: str) -> None:
    assert word in unrest_among(members)


def test_a_sample_is_read_by_its_whole_name() -> None:
    text = "# TYPE a_total counter\na_total_more 7\na_total 12\n"
    assert sample(text, "a_total") == 12
    with pytest.raises(DrillError, match="no sample b"):
        sample(text, "b")


@dataclass(slots=True, kw_only=True)
class Family(Node):
    """A manager whose supervisor has one child, and no server."""

    def start(self) -> None:
        program = "import subprocess, sys; subprocess.run(['sleep', '300'])"
        self.process = self.host.spawn([sys.executable, "-c", program], self.log, as_account=False)

    def agent_pids(self) -> list[int]:
        return self.manager_pids()[1:]


def test_a_managers_processes_are_its_own_and_its_childrens(ground: Ground) -> None:
    host = ground.hosts["db1"]
    node = Family(name="db1", host=host, postgres_port=1, password="", log=ground.logs / "db1.log")
    assert not node.is_running()
    with pytest.raises(DrillError, match="does not run"):
        node.manager_pids()
    node.ensure_started()
    deadline = time.monotonic() + 20
    while len(node.manager_pids()) < 2:
        assert time.monotonic() < deadline
    assert node.process is not None
    assert node.manager_pids()[0] == node.process.pid
    before = node.process
    node.ensure_started()
    assert node.process is before
    host.kill_all()
    assert before.ended.wait(10)
    assert all(state_of(pid) in ("", "Z") for pid in [before.pid])
    assert not node.is_running()
