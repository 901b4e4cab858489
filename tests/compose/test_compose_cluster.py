"""What `docker compose up` promises, tried on containers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest
import requests

from hamgr.drill.compose_cluster import ComposeCluster
from hamgr.drill.compose_project import MEMBERS
from hamgr.drill.containers import docker
from hamgr.drill.faults import FAULTS
from hamgr.drill.network import free_subnet
from hamgr.drill.plan import Place, Plan, Via
from hamgr.drill.run import run_drill
from tests.compose.conftest import Running, compose

COPYING = "copying the data directory"
IS_STANDBY = "SELECT pg_is_in_recovery()"


def wait_until(is_true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "did not become true in time"
        time.sleep(0.1)


def test_client_says_where_to_connect_and_that_is_true(running: Running) -> None:
    said = running.run("logs", "client").stdout
    assert "The cluster is writable" in said
    for port in ("WRITE", "READ", "POOL"):
        assert f"postgresql://app:app-password@127.0.0.1:{running.ports[port]}/app" in said
    assert running.ask("WRITE", IS_STANDBY) == [(False,)]
    assert running.ask("POOL", IS_STANDBY) == [(False,)]
    wait_until(lambda: running.ask("READ", IS_STANDBY) == [(True,)])


def test_console_of_the_pooler_answers_its_admin_and_nobody_else(running: Running) -> None:
    console = {"user": "pooler", "password": "pooler-password", "database": "pgbouncer"}
    assert any(row[0] == "app" for row in running.ask("POOL", "SHOW POOLS", **console))
    with pytest.raises(psycopg.OperationalError):
        running.ask("POOL", "SHOW POOLS", **{**console, "password": "wrong"})


def test_metrics_of_members_and_load_balancer_can_be_scraped(running: Running) -> None:
    for port, name in (("DB1", "hamgr_"), ("DB2", "hamgr_"), ("DB3", "hamgr_"), ("HAPROXY", "haproxy_server_status")):
        answer = requests.get(f"http://127.0.0.1:{running.ports[port]}/metrics", timeout=5)
        assert answer.status_code == 200
        assert name in answer.text


@pytest.mark.parametrize(
    ("service", "first"),
    [("db1", "hamgr-guard"), ("etcd1", "etcd"), ("haproxy", "haproxy"), ("pgbouncer", "pgbouncer")],
)
def test_nothing_runs_as_root_and_the_guard_is_the_first_process(running: Running, service: str, first: str) -> None:
    said = docker("exec", running.container(service), "sh", "-c", "cat /proc/1/comm; id -u").split()
    assert said[0] == first
    assert int(said[1]) > 0


def test_command_line_works_in_the_client(running: Running) -> None:
    listed = running.run("exec", "-T", "client", "hamgr", "list", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    assert all(f'"{name}"' in listed.stdout for name in ("db1", "db2", "db3"))


def test_orders_to_a_member_want_the_login(running: Running) -> None:
    url = f"http://127.0.0.1:{running.ports['DB1']}/switchover"
    assert requests.delete(url, timeout=5).status_code == 401
    answer = requests.delete(url, auth=("admin", "admin-password"), timeout=5)
    assert (answer.status_code, answer.text) == (404, "nothing is scheduled")


def is_streaming(running: Running, name: str) -> bool:
    query = "SELECT count(*) FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
    with running.connect("WRITE", "postgres", "superuser-password", "postgres") as connection:
        return bool(connection.execute(query, (name,)).fetchone()[0])


def a_replica(running: Running) -> str:
    """One of two that stream."""
    wait_until(lambda: sum(is_streaming(running, name) for name in MEMBERS) == 2)
    return next(name for name in MEMBERS if is_streaming(running, name))


def test_member_that_was_killed_comes_back_with_its_data(running: Running) -> None:
    """Not as after an orderly stop: its pid file names a process of which the pid is another's by now."""
    name = a_replica(running)
    killed_at = datetime.now(UTC).isoformat()
    docker("kill", running.container(name))
    docker("start", running.container(name))
    wait_until(lambda: is_streaming(running, name))
    assert docker("logs", "--since", killed_at, running.container(name)).count(COPYING) == 0


def test_member_that_was_removed_for_good_is_missed_by_nobody_and_comes_back_as_a_clone(running: Running) -> None:
    lost = a_replica(running)
    with running.connect("WRITE") as connection:
        connection.execute("CREATE TABLE kept (number int)")
        docker("rm", "--force", running.container(lost))
        docker("volume", "rm", f"{running.project}_{lost}")
        for number in range(100):
            connection.execute("INSERT INTO kept VALUES (%s)", (number,))
    assert running.run("up", "--detach", "--no-build").returncode == 0
    wait_until(lambda: is_streaming(running, lost))
    assert COPYING in running.run("logs", lost).stdout


def test_taken_port_is_named_and_what_runs_there_is_left_alone(running: Running) -> None:
    other = {name: "0" if name.endswith("_PORT") else value for name, value in running.environment.items()}
    other |= {"COMPOSE_PROJECT_NAME": f"{running.project}-other", "HAMGR_NET": free_subnet()}
    other["HAMGR_WRITE_PORT"] = str(running.ports["WRITE"])
    try:
        refused = compose(other, "up", "--detach", "--no-build", "--no-deps", "haproxy")
        assert refused.returncode != 0
        assert f"127.0.0.1:{running.ports['WRITE']} failed: port is already allocated" in refused.stderr
    finally:
        compose(other, "down", "--volumes", "--timeout", "0")
    assert running.ask("WRITE", IS_STANDBY) == [(False,)]


def test_crash_of_the_server_is_survived_by_a_client_behind_haproxy(running: Running, room_for_drill: Plan) -> None:
    cluster = ComposeCluster(room_for_drill)
    try:
        cluster.start(150.0)
        outcome = run_drill(cluster, FAULTS["postgres-killed"], lambda _: None)
    finally:
        cluster.close()
    assert outcome.error == ""
    assert outcome.verdict is not None
    assert outcome.verdict.is_safe
    assert outcome.verdict.lost + outcome.verdict.lost_pinned == 0
    assert {title.partition("/")[0] for title in outcome.verdict.leaderships} <= {"db1", "db2", "db3"}


@pytest.fixture
def room_for_drill(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return Plan(tmp_path_factory.mktemp("drill"), None, Place.COMPOSE, via=Via.HAPROXY)
