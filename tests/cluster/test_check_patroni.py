"""The public Nagios plugin for Patroni, check_patroni, judges hamgr's clusters as it judges Patroni's."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from hamgr.core.portrait import PATRONI_VERSION
from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import Cli, lag_of, sql, stop, wait_until

pytestmark = pytest.mark.cluster

PROGRAM = Path(sys.executable).with_name("check_patroni")
OK, WARNING, CRITICAL, UNKNOWN = range(4)
NOBODY = "0" * 32
"""A hash that no configuration has."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How a check ended: Nagios' status, what it says, its numbers by name."""

    status: int
    text: str

    @property
    def numbers(self) -> dict[str, float]:
        perfdata = self.text.partition("|")[2]
        return {name: float(value) for name, value in re.findall(r"'?([^\s'=]+)'?=(-?[0-9.]+)", perfdata)}


@dataclass(frozen=True, slots=True)
class Check:
    """`check_patroni` pointed at members."""

    urls: tuple[str, ...]

    def __call__(self, name: str, *options: str) -> Judged:
        endpoints = [word for url in self.urls for word in ("-e", url)]
        ran = subprocess.run([PROGRAM, *endpoints, name, *options], capture_output=True, text=True, timeout=60)
        return Judged(ran.returncode, ran.stdout + ran.stderr)


def node(member: Member) -> Check:
    return Check((member.rest_url,))


@pytest.fixture
def check(cluster: Cluster) -> Check:
    """As its manual advises: all members, the first that answers is taken."""
    return Check(tuple(member.rest_url for member in cluster.members))


@contextlib.contextmanager
def paused(hamgr: Cli) -> Iterator[None]:
    assert hamgr("pause", "--wait").status == 0
    try:
        yield
    finally:
        assert hamgr("resume", "--wait").status == 0


def counts(check: Check, *options: str) -> Judged:
    """Of three members; a warning below three that are healthy, critical below two."""
    return check("cluster_node_count", "-w", "3:", "-c", "2:", "--healthy-warning", "3:", "--healthy-critical", "2:")


def replicas(check: Check, *options: str) -> Judged:
    """A warning below two that are healthy, critical below one."""
    return check("cluster_has_replica", "--warning", "2:", "--critical", "1:", *options)


def test_a_healthy_cluster_passes_every_check_of_the_cluster(undisturbed: Member, check: Check) -> None:
    assert check("cluster_has_leader").status == OK
    counted = wait_until("three are healthy", lambda: (seen := counts(check)).status == OK and seen)
    assert counted.numbers["healthy_members"] == 3
    assert (counted.numbers["role_leader"], counted.numbers["role_replica"]) == (1, 2)
    assert (counted.numbers["state_running"], counted.numbers["state_streaming"]) == (1, 2)
    # Positions in etcd may be those of the last tick but one, and a copy made just before is more than 1 MB of WAL.
    judged = wait_until("both are near", lambda: (seen := replicas(check, "--max-lag", "1MB")).status == OK and seen)
    assert (judged.numbers["healthy_replica"], judged.numbers["unhealthy_replica"]) == (2, 0)
    assert check("cluster_has_scheduled_action").status == OK
    assert check("cluster_is_in_maintenance").status == OK


def test_a_healthy_member_passes_every_check_of_a_node(cluster: Cluster, undisturbed: Member) -> None:
    leader, others = node(undisturbed), [node(member) for member in cluster.replicas()]
    for each in (leader, *others):
        assert each("node_is_alive").status == OK
        assert each("node_is_pending_restart").status == OK
        assert each("node_patroni_version", "--patroni-version", PATRONI_VERSION).status == OK
    for name in ("node_is_primary", "node_is_leader"):
        assert [each(name).status for each in (leader, *others)] == [OK, CRITICAL, CRITICAL]
    for options in ((), ("--max-lag", "1MB"), ("--is-async",)):
        assert [each("node_is_replica", *options).status for each in (leader, *others)] == [CRITICAL, OK, OK]
    assert others[0]("node_is_replica", "--is-sync").status == CRITICAL
    assert leader("node_is_leader", "--is-standby-leader").status == CRITICAL


def test_a_change_of_configuration_is_noticed(undisturbed: Member, check: Check, hamgr: Cli, tmp_path: Path) -> None:
    remembered = ("cluster_config_has_changed", "--state-file", str(tmp_path / "config"), "--save")
    assert check("cluster_config_has_changed", "--hash", NOBODY).status == CRITICAL
    check(*remembered)
    assert check(*remembered).status == OK
    try:
        assert hamgr("edit-config", "-s", "maximum_lag_on_failover=2MB", "--force").status == 0
        wait_until("the change is noticed", lambda: check(*remembered).status == CRITICAL)
        assert check(*remembered).status == OK
    finally:
        assert hamgr("edit-config", "-s", "maximum_lag_on_failover=null", "--force").status == 0


def test_maintenance_and_a_scheduled_switchover_are_seen(undisturbed: Member, check: Check, hamgr: Cli) -> None:
    asked = {"leader": undisturbed.name, "scheduled_at": "2099-01-01T03:00:00+00:00"}
    assert requests.post(f"{undisturbed.rest_url}/switchover", json=asked, timeout=10).status_code == 202
    try:
        judged = wait_until(
            "it is seen", lambda: (seen := check("cluster_has_scheduled_action")).status == CRITICAL and seen
        )
        assert judged.numbers["scheduled_switchover"] == 1
    finally:
        assert requests.delete(f"{undisturbed.rest_url}/switchover", timeout=10).status_code == 200
    with paused(hamgr):
        assert check("cluster_is_in_maintenance").status == CRITICAL
    wait_until("it is over", lambda: check("cluster_is_in_maintenance").status == OK)


def test_a_restart_that_is_due_is_seen(cluster: Cluster, undisturbed: Member, hamgr: Cli) -> None:
    running = int(sql(undisturbed, "SHOW max_connections")[0][0])
    try:
        assert hamgr("edit-config", "-p", f"max_connections={running + 20}", "--force").status == 0
        for member in cluster.members:
            wait_until("it is due", lambda member=member: node(member)("node_is_pending_restart").status == CRITICAL)
    finally:
        assert hamgr("edit-config", "-p", f"max_connections={running}", "--force").status == 0
    for member in cluster.members:
        wait_until("it is no more", lambda member=member: node(member)("node_is_pending_restart").status == OK)


@pytest.mark.parametrize(("mode", "other"), [("on", "quorum"), ("quorum", "sync")])
def test_synchronous_standbys_are_known_as_such(
    cluster: Cluster, undisturbed: Member, check: Check, hamgr: Cli, mode: str, other: str
) -> None:
    mine = "sync" if mode == "on" else "quorum"
    is_sync = ("node_is_replica", "--is-sync", "--sync-type", mine)
    try:
        assert hamgr("edit-config", "-s", f"synchronous_mode={mode}", "--force").status == 0
        judged = wait_until(
            "it counts",
            lambda: (seen := replicas(check, "--sync-critical", "1:", "--sync-type", mine)).status == OK and seen,
        )
        assert judged.numbers["sync_replica"] >= 1
        standby = next(member for member in cluster.replicas() if node(member)(*is_sync).status == OK)
        assert node(standby)("node_is_replica", "--is-async").status == CRITICAL
        assert node(standby)("node_is_replica", "--is-sync", "--sync-type", other).status == CRITICAL
    finally:
        assert hamgr("edit-config", "-s", "synchronous_mode=null", "--force").status == 0
    wait_until("none is", lambda: all(node(each)(*is_sync).status == CRITICAL for each in cluster.replicas()))


def test_a_replica_that_lags_is_not_healthy(cluster: Cluster, undisturbed: Member, check: Check) -> None:
    replica = cluster.replicas()[0]
    (receiver,) = sql(replica, "SELECT pid FROM pg_stat_wal_receiver")[0]
    os.kill(receiver, signal.SIGSTOP)
    try:
        sql(undisturbed, "CREATE TABLE ballast AS SELECT repeat('x', 100) FROM generate_series(1, 100000)")
        wait_until("the leader knows the lag", lambda: lag_of(cluster, replica) > 1024 * 1024)
        judged = wait_until(
            "one lags", lambda: (seen := replicas(check, "--max-lag", "1MB")).status == WARNING and seen
        )
        assert judged.numbers["healthy_replica"] == 1
        assert judged.numbers[f"{replica.name}_lag"] > 1024 * 1024
        assert node(replica)("node_is_replica", "--max-lag", "1MB").status == CRITICAL
        assert node(replica)("node_is_replica").status == OK
    finally:
        os.kill(receiver, signal.SIGCONT)
        sql(undisturbed, "DROP TABLE IF EXISTS ballast")


def test_a_stopped_member_is_missing_and_not_alive(cluster: Cluster, undisturbed: Member, check: Check) -> None:
    replica = cluster.replicas()[0]
    stop(replica)
    try:
        judged = wait_until("it is missing", lambda: (seen := counts(node(undisturbed))).status == WARNING and seen)
        assert (judged.numbers["members"], judged.numbers["healthy_members"]) == (2, 2)
        assert replicas(check).status == WARNING
        assert check("cluster_has_leader").status == OK
        assert node(replica)("node_is_alive").status == UNKNOWN
    finally:
        cluster.ensure_started(replica)
    cluster.wait_until_settled(45.0)


def test_a_crash_without_failover_leaves_no_leader_and_a_replica_less(
    cluster: Cluster, check: Check, hamgr: Cli
) -> None:
    leader, replica = cluster.need_leader(), cluster.replicas()[0]
    with paused(hamgr):
        os.kill(replica.postmaster_pid(), signal.SIGKILL)
        judged = wait_until("a replica is down", lambda: (seen := replicas(check)).status == WARNING and seen)
        assert (judged.numbers["healthy_replica"], judged.numbers["unhealthy_replica"]) == (1, 1)
        assert counts(check).numbers["healthy_members"] == 2
        assert node(replica)("node_is_replica").status == CRITICAL
        assert node(replica)("node_is_alive").status == OK
        assert check("cluster_has_leader").status == OK
        os.kill(leader.postmaster_pid(), signal.SIGKILL)
        wait_until("nobody leads", lambda: check("cluster_has_leader").status == CRITICAL)
        assert [node(member)("cluster_has_leader").status for member in cluster.members] == [CRITICAL] * 3
        assert node(leader)("node_is_primary").status == CRITICAL
        assert node(leader)("node_is_alive").status == OK
    cluster.wait_until_settled(45.0)
    wait_until("all is well", lambda: counts(check).status == check("cluster_has_leader").status == OK)


def test_a_switchover_changes_the_timeline_that_was_remembered(cluster: Cluster, hamgr: Cli, tmp_path: Path) -> None:
    former, successor = cluster.need_leader(), cluster.replicas()[0]
    timeline = str(former.says()["timeline"])
    assert node(successor)("node_tl_has_changed", "--timeline", timeline).status == OK
    remembered = ("node_tl_has_changed", "--state-file", str(tmp_path / "timeline"), "--save")
    node(successor)(*remembered)
    assert node(successor)(*remembered).status == OK
    assert hamgr("switchover", "--leader", former.name, "--candidate", successor.name, "--force").status == 0
    cluster.wait_until_settled(30.0)
    judged = node(successor)(*remembered)
    assert (judged.status, judged.numbers["timeline"]) == (CRITICAL, int(timeline) + 1)
    assert node(successor)(*remembered).status == OK
    assert node(successor)("node_is_primary").status == OK
    assert node(former)("node_is_replica").status == OK
