"""etcd dies altogether: the leader leads on by its members' promises, and agents start, answer and adopt without it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hamgr.drill.cluster import Cluster
from hamgr.drill.errors import DrillError
from hamgr.drill.faults import FAULTS
from hamgr.drill.hosts import Host
from hamgr.drill.member import Member
from hamgr.drill.run import run_drill
from hamgr.drill.store import Store, StoreMember
from hamgr.guard.layout import SharedPage
from tests.cluster.bench import TTL_S, Cli, sql, term, wait_until

pytestmark = pytest.mark.cluster

OUTAGE_S = 2.5 * TTL_S
LONGEST_RESTART_S = TTL_S / 2


@pytest.fixture
def etcd_is_gone(cluster: Cluster) -> Iterator[Cluster]:
    """No process of etcd is left; it is back when the test is over."""
    for member in cluster.store.members:
        cluster.store.kill_member(member)
    yield cluster
    bring_back(cluster)


def bring_back(cluster: Cluster) -> None:
    for member in cluster.store.members:
        if member.process is None or member.process.ended.is_set():
            cluster.store.start_member(member)
    cluster.store.wait_until_healthy(30.0)


def code(member: Member, path: str) -> int:
    answer = member.get(path)
    return 0 if answer is None else answer.status_code


def agent_of(member: Member) -> int:
    """Its pid, 0 while there is none."""
    try:
        return member.agent_pid()
    except DrillError:
        return 0


def is_writable(member: Member) -> bool:
    standing = member.standing()
    return standing is not None and standing.is_primary


def leads_by_peers(member: Member) -> bool:
    return "by the promises of the other members" in str(member.says().get("note", ""))


def restart_agent(member: Member) -> None:
    """The agent was killed, and another one, which answers, has taken its place, well before a promise runs out."""
    former = member.agent_pid()
    began_at = time.monotonic()
    os.kill(former, signal.SIGKILL)
    wait_until("the guard starts another agent", lambda: agent_of(member) not in (0, former))
    wait_until("it answers", lambda: code(member, "/patroni") == 200)
    took_s = time.monotonic() - began_at
    if took_s > LONGEST_RESTART_S:
        pytest.skip(f"this machine is too busy: an agent took {took_s:.1f} s to start, which ends the lead by rights")


def wait_until_renewed(leader: Member) -> None:
    """All others have promised once more since: the next agent may be missing for a ttl."""
    page = SharedPage.open(str(leader.runtime_dir))
    present = page.deadline_ns
    wait_until("the leader's deadline has moved on", lambda: page.deadline_ns > present)
    assert page.armed
    page.close()


@pytest.mark.parametrize("fault", ["etcd-gone", "etcd-frozen"])
def test_losing_etcd_for_long_costs_no_leader_and_hardly_a_write(cluster: Cluster, fault: str) -> None:
    outcome = run_drill(cluster, replace(FAULTS[fault], hold_s=OUTAGE_S), lambda _: None)
    assert outcome.error == ""
    assert outcome.is_good
    assert outcome.verdict is not None
    assert outcome.verdict.leader_changes == 0
    assert (outcome.verdict.lost, outcome.verdict.lost_pinned) == (0, 0)
    assert outcome.verdict.write_gap_s is not None
    assert outcome.verdict.write_gap_s < TTL_S / 5


def test_agents_that_start_without_etcd_answer_and_adopt(cluster: Cluster, etcd_is_gone: Cluster) -> None:
    leader = cluster.need_leader()
    postmasters = {member.name: member.postmaster_pid() for member in cluster.members}
    wait_until("the leader leads by its peers", lambda: leads_by_peers(leader))
    for member in cluster.members:
        restart_agent(member)
        wait_until_renewed(leader)
    for replica in cluster.members:
        if replica is not leader:
            wait_until("the replica serves reads", lambda member=replica: code(member, "/replica") == 200)
            assert code(replica, "/liveness") == 200
            assert code(replica, "/primary") == 503
    wait_until("the leader's new agent leads by its peers", lambda: leads_by_peers(leader))
    assert code(leader, "/primary") == 200
    sql(leader, "CREATE TABLE IF NOT EXISTS outage (n int)")
    sql(leader, "INSERT INTO outage VALUES (1)")
    bring_back(cluster)
    wait_until("the key is its own again", lambda: cluster.store.get("/service/drill/leader") == leader.name)
    assert cluster.wait_until_settled(45.0) is leader
    assert {member.name: member.postmaster_pid() for member in cluster.members} == postmasters


def test_one_member_that_cannot_promise_ends_the_lead_in_time(cluster: Cluster) -> None:
    """It may be about to be elected, for all that the leader knows."""
    leader = cluster.need_leader()
    silent = next(member for member in cluster.members if member is not leader)
    before = term(cluster)
    for store_member in cluster.store.members:
        cluster.store.kill_member(store_member)
    guard, agent = silent.guard_pid(), silent.agent_pid()
    for pid in (guard, agent):
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until("nobody is primary any more", lambda: not any(is_writable(member) for member in cluster.members))
        assert code(leader, "/primary") != 200
    finally:
        for pid in (agent, guard):
            os.kill(pid, signal.SIGCONT)
        bring_back(cluster)
    cluster.wait_until_settled(60.0)
    assert term(cluster) >= before


def test_an_etcd_that_was_made_anew_costs_neither_the_primary_nor_a_row(cluster: Cluster) -> None:
    """Nobody of the members can have been told: the cluster is entered again by whoever runs as its primary."""
    leader = cluster.need_leader()
    sql(leader, "CREATE TABLE IF NOT EXISTS kept (n int)")
    sql(leader, "INSERT INTO kept VALUES (1)")
    postmasters = {member.name: member.postmaster_pid() for member in cluster.members}
    for member in cluster.store.members:
        cluster.store.kill_member(member)
    wait_until("the leader leads by its peers", lambda: leads_by_peers(leader))
    for member in cluster.store.members:
        assert member.data_dir is not None
        shutil.rmtree(member.data_dir)
        cluster.store.start_member(member)
    cluster.store.wait_until_healthy(30.0)
    wait_until("the cluster is entered again", lambda: cluster.store.get("/service/drill/leader") == leader.name)
    assert cluster.wait_until_settled(45.0) is leader
    assert sql(leader, "SELECT count(*) FROM kept") == [(1,)]
    assert {member.name: member.postmaster_pid() for member in cluster.members} == postmasters


def save(cluster: Cluster) -> Path:
    """A backup, as an operator makes it."""
    member = cluster.store.members[0]
    assert member.data_dir is not None
    backup = member.data_dir.with_name(f"backup-{time.time_ns()}.db")
    etcdctl(member, "--endpoints", f"http://{member.endpoint}", "snapshot", "save", str(backup))
    backup.chmod(0o644)
    return backup


def restore(cluster: Cluster, backup: Path) -> None:
    """All of etcd is as it was when that was made."""
    store = cluster.store
    assert isinstance(store, Store)
    for member in store.members:
        store.kill_member(member)
    peers = ",".join(f"{name}={url}" for name, url in store._peer_urls.items())
    for member in store.members:
        assert member.data_dir is not None
        shutil.rmtree(member.data_dir)
        options = ["--name", member.name, "--data-dir", str(member.data_dir), "--initial-cluster", peers]
        options += ["--initial-advertise-peer-urls", store._peer_urls[member.name]]
        options += ["--initial-cluster-token", store._token]
        etcdctl(member, "snapshot", "restore", str(backup), *options)
    for member in store.members:
        store.start_member(member)
    store.wait_until_healthy(30.0)


def etcdctl(member: StoreMember, *arguments: str) -> None:
    assert isinstance(member.host, Host)
    member.host.run(["env", "-i", "PATH=/usr/bin:/bin", "ETCDCTL_API=3", "etcdctl", *arguments], timeout_s=30.0)


def test_a_backup_in_which_it_leads_costs_the_primary_nothing(cluster: Cluster) -> None:
    leader = cluster.need_leader()
    backup = save(cluster)
    sql(leader, "CREATE TABLE IF NOT EXISTS kept (n int)")
    sql(leader, "INSERT INTO kept VALUES (2)")
    postmasters = {member.name: member.postmaster_pid() for member in cluster.members}
    restore(cluster, backup)
    assert cluster.wait_until_settled(45.0) is leader
    time.sleep(TTL_S)
    assert cluster.wait_until_settled(45.0) is leader
    assert {member.name: member.postmaster_pid() for member in cluster.members} == postmasters


def test_a_backup_in_which_another_leads_makes_nobody_a_second_primary(cluster: Cluster, hamgr: Cli) -> None:
    former = cluster.need_leader()
    backup = save(cluster)
    assert hamgr("switchover", "drill", "--force").status == 0
    leader = cluster.wait_until_settled(45.0)
    assert leader is not former
    sql(leader, "CREATE TABLE IF NOT EXISTS kept (n int)")
    sql(leader, "INSERT INTO kept VALUES (3)")
    before = sql(leader, "SELECT count(*) FROM kept")
    restore(cluster, backup)
    deadline = time.monotonic() + 4 * TTL_S
    while time.monotonic() < deadline:
        assert sum(is_writable(member) for member in cluster.members) <= 1
    elected = cluster.wait_until_settled(45.0)
    assert sql(elected, "SELECT count(*) FROM kept") == before
