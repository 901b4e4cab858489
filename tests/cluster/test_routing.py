"""A real PgBouncer and a real HAProxy before a real cluster: clients wait out a switchover, and nothing else does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
import requests

from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import Bench, Cli, log_of, stop, wait_until
from tests.cluster.frontage import (
    Frontage,
    Pgbench,
    fill,
    in_background,
    missing_packages,
    notes_until,
    record_of,
    switch_over,
)

pytestmark = pytest.mark.cluster

RATE = 100
"""Transactions a second: enough to have some in every moment of a switchover, also on a slow machine."""


@pytest.fixture
def frontage(bench: Bench, cluster: Cluster) -> Iterator[Frontage]:
    """PgBouncer and HAProxy, not started. Members that were told of them forget them."""
    missing = missing_packages()
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
    made = Frontage(cluster, bench.directory / "front")
    yield made
    made.stop()


@contextmanager
def open_transaction(frontage: Frontage) -> Iterator[psycopg.Connection]:
    """A client of the pool that sits idle in a transaction. What becomes of it is the test's."""
    client = psycopg.connect(frontage.pool_dsn(), password=frontage.password)
    client.execute("SELECT 1")
    yield client
    client.close()


def is_pausing(frontage: Frontage, before: int) -> bool:
    return "PAUSE command issued" in (frontage.directory / "pgbouncer.log").read_text()[before:]


def failed_releases(member: Member) -> int:
    return log_of(member).count("ReleasePools failed")


def log_size(frontage: Frontage) -> int:
    return len((frontage.directory / "pgbouncer.log").read_text())


@pytest.mark.parametrize("way", ["target file", "HAProxy"])
def test_no_transaction_fails_when_the_lead_is_handed_over(cluster: Cluster, frontage: Frontage, way: str) -> None:
    """16 clients of pgbench, transaction pooling; PgBouncer is pointed to the new leader, or to an HAProxy."""
    fill(cluster)
    frontage.start(through_haproxy=way == "HAProxy")
    balancers = [frontage.balancer_entry()] if way == "HAProxy" else []
    frontage.tell([frontage.pool_entry()], balancers, owner="" if balancers else cluster.replicas()[0].name)
    load = Pgbench(frontage, frontage.pool_dsn(), seconds=10, rate=RATE)
    new = switch_over(cluster)
    seen = load.transactions()
    wait_until("clients go on at the new leader", lambda: load.transactions() > seen)
    bearing = load.end()
    assert bearing.errors == ""
    assert bearing.transactions > seen
    assert (record_of(new)["cause"], record_of(new)["notes"]) == ("switchover", [])


def test_no_transaction_fails_when_the_leader_is_stopped_in_order(cluster: Cluster, frontage: Frontage) -> None:
    """As `systemctl stop` does it."""
    fill(cluster)
    frontage.start(through_haproxy=True)
    frontage.tell([frontage.pool_entry()], [frontage.balancer_entry()])
    former = cluster.need_leader()
    load = Pgbench(frontage, frontage.pool_dsn(), seconds=10, rate=RATE)
    assert stop(former) == 0
    wait_until("another leads", lambda: cluster.leader() not in (None, former))
    bearing = load.end()
    assert bearing.errors == ""
    assert record_of(cluster.need_leader())["cause"] == "shutdown"
    cluster.start_member(former)
    cluster.wait_until_settled(60.0)


def test_a_client_idle_in_a_transaction_does_not_hold_the_switchover_up(
    cluster: Cluster, frontage: Frontage, hamgr: Cli
) -> None:
    """It loses its session, as without a pool; the record and `hamgr failovers` say why."""
    frontage.start(through_haproxy=True)
    frontage.tell([frontage.pool_entry(pause_timeout=0.3)], [frontage.balancer_entry()])
    with open_transaction(frontage) as client:
        new = switch_over(cluster)
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    (note,) = notes_until(new, bool)
    assert "was not held: server connections were still in use after 0.3 s (1 of them" in note
    shown = hamgr("failovers", str(record_of(new)["term"])).out
    assert f"note      {note}" in shown
    wait_until("the pool goes on", frontage.answers)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"password": "wrong"}, "SASL authentication failed"), ({"port": 1}, "refused"), ({"host": "10.255.255.1"}, "")],
    ids=["wrong password", "nobody there", "no such host"],
)
def test_a_pool_that_cannot_be_reached_does_not_hold_the_switchover_up(
    cluster: Cluster, frontage: Frontage, wrong: dict[str, object], words: str
) -> None:
    frontage.start(through_haproxy=True)
    frontage.tell([frontage.pool_entry(**wrong)], [frontage.balancer_entry()])
    # Logs go on from test to test.
    before = {member.name: failed_releases(member) for member in cluster.replicas()}
    new = switch_over(cluster)
    notes = notes_until(new, lambda found: any("was not released" in note for note in found))
    assert any("was not held" in note and words in note for note in notes)
    wait_until("the pool goes on", frontage.answers)
    assert failed_releases(new) - before[new.name] == 1


def test_a_hand_over_that_nobody_takes_ends_with_clients_that_go_on(cluster: Cluster, frontage: Frontage) -> None:
    """The successor freezes when the pool is being paused. The old leader takes its offer back and starts again."""
    former, successor = cluster.need_leader(), cluster.replicas()[0]
    frontage.start(through_haproxy=True)
    frontage.tell([frontage.pool_entry(pause_timeout=30)], [frontage.balancer_entry()])
    before = log_size(frontage)
    with open_transaction(frontage) as client:
        body = {"leader": former.name, "candidate": successor.name}
        answer = in_background(former, body)
        wait_until("the pool is being paused", lambda: is_pausing(frontage, before))
        pids = [successor.guard_pid(), successor.agent_pid()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            client.commit()
            wait_until("the offer was taken back", lambda: "WithdrawOffer done" in log_of(former))
            wait_until("clients go on", frontage.answers)
            assert cluster.need_leader() is former
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    assert answer.result(60).status_code == 503
    assert cluster.wait_until_settled(60.0) is former


def test_clients_go_on_after_the_agent_died_that_had_paused_them(cluster: Cluster, frontage: Frontage) -> None:
    """A fresh agent adopts the server, knows nothing of a pause, and releases all the same."""
    leader = cluster.need_leader()
    frontage.start(through_haproxy=True)
    frontage.tell([frontage.pool_entry(pause_timeout=30)], [frontage.balancer_entry()])
    before = log_size(frontage)
    with open_transaction(frontage):
        answer = in_background(leader, {"leader": leader.name})
        wait_until("the pool is being paused", lambda: is_pausing(frontage, before))
        assert requests.delete(f"{leader.rest_url}/switchover", timeout=5).status_code == 200
        os.kill(leader.agent_pid(), signal.SIGKILL)
        wait_until("clients go on", frontage.answers)
    answer.cancel()
    if cluster.wait_until_settled(60.0) is not leader:
        # On a machine so slow that the lease ended before there was another agent.
        assert record_of(cluster.need_leader())["cause"] == "leader_lost"


def test_clients_find_the_new_leader_when_haproxy_is_restarted_in_mid_failover(
    cluster: Cluster, frontage: Frontage
) -> None:
    """What it was told is lost; its health checks find the leader, and the pool that leads to it goes on."""
    frontage.start(through_haproxy=True)
    frontage.tell([frontage.pool_entry()], [frontage.balancer_entry()])
    former = cluster.need_leader()
    frontage.stop_haproxy()
    os.kill(former.postmaster_pid(), signal.SIGKILL)
    leader = cluster.wait_until_settled(60.0)
    frontage.start_haproxy()
    wait_until("clients go on", frontage.answers)
    assert frontage.routed_to() == [leader.name]
    if leader is not former:
        assert any("load balancer" in note and "was not told" in note for note in notes_until(leader, bool))
