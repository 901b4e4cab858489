"""Programs that read Patroni's keys in etcd find them: as vip-manager and templates of confd read them."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime
from typing import Any

import psycopg
import pytest
import requests

from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import PREFIX, Cli, sql, wait_until

pytestmark = pytest.mark.cluster


def etcdctl(cluster: Cluster, *arguments: str) -> list[str]:
    """Lines that the real client prints for version 3 of the interface."""
    said = subprocess.run(
        ["etcdctl", f"--endpoints={','.join(cluster.store.endpoints)}", *arguments],
        env={**os.environ, "ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return said.stdout.splitlines()


def value(cluster: Cluster, key: str) -> str:
    """Of one key below the cluster's prefix; empty where there is none."""
    return "\n".join(etcdctl(cluster, "get", "--print-value-only", PREFIX + key))


def revision_of(cluster: Cluster) -> int:
    """etcd's present revision."""
    (line,) = etcdctl(cluster, "get", PREFIX + "leader", "--write-out=json")
    return int(json.loads(line)["header"]["revision"])


def leaders_since(cluster: Cluster, revision: int, last: str) -> list[tuple[str, str]]:
    """Events of the leader key after that revision, as a watcher got them, up to the one that names `last`."""
    lines: list[str] = []
    argv = ["etcdctl", f"--endpoints={cluster.store.endpoints[0]}", "watch", f"--rev={revision + 1}"]
    with subprocess.Popen(
        [*argv, PREFIX + "leader"], env={**os.environ, "ETCDCTL_API": "3"}, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            lines.append(line.strip())
            if lines[-1] == last and len(lines) % 3 == 0:
                break
        watching.terminate()
    # Of each event its kind, the key and the value.
    return list(zip(lines[::3], lines[2::3], strict=True))


def members(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """confd's `range gets "/members/*"`: the key's last part, and its value by `json`."""
    lines = etcdctl(cluster, "get", "--prefix", f"{PREFIX}members/")
    return {key.rpartition("/")[2]: json.loads(text) for key, text in zip(lines[::2], lines[1::2], strict=True)}


def host_and_port(conn_url: str) -> str:
    """confd's `base (replace (index (split $data.conn_url "/") 2) "@" "/" -1)`."""
    return conn_url.split("/")[2].replace("@", "/").rpartition("/")[2]


def rest_port(api_url: str) -> str:
    """confd's `index (split (index (split $data.api_url "/") 2) ":") 1`."""
    return api_url.split("/")[2].split(":")[1]


def haproxy_servers(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """What Patroni's template for HAProxy makes of the keys: name -> (address of the server, port of the check)."""
    return {
        name: (host_and_port(found["conn_url"]), rest_port(found["api_url"]))
        for name, found in members(cluster).items()
    }


def pgbouncer_database(cluster: Cluster) -> str:
    """What Patroni's template for PgBouncer makes of the keys: the connection string of the leader, empty for none."""
    leader = value(cluster, "leader")
    found = value(cluster, f"members/{leader}") if leader else ""
    if not found:
        return ""
    host, port = host_and_port(json.loads(found)["conn_url"]).split(":")
    return f"host={host} port={port}"


def test_each_program_on_a_host_knows_whether_its_member_leads(cluster: Cluster, undisturbed: Member) -> None:
    """vip-manager compares the value with its own member's name, byte for byte."""
    leader = value(cluster, "leader")
    assert [leader == member.name for member in cluster.members].count(True) == 1
    assert leader == undisturbed.name


def test_the_template_for_haproxy_finds_every_server_and_its_check(cluster: Cluster, undisturbed: Member) -> None:
    expected = {
        member.name: (f"{member.host.address}:{member.postgres_port}", str(member.rest_port))
        for member in cluster.members
    }
    assert haproxy_servers(cluster) == expected
    codes = {
        name: requests.options(f"http://{server.split(':')[0]}:{port}/primary", timeout=5).status_code
        for name, (server, port) in haproxy_servers(cluster).items()
    }
    assert codes == {name: 200 if name == undisturbed.name else 503 for name in expected}


def test_a_template_that_goes_by_roles_finds_one_primary_and_what_it_needs(
    cluster: Cluster, undisturbed: Member
) -> None:
    found = members(cluster)
    assert {name: each["role"] for name, each in found.items()} == {
        member.name: "primary" if member is undisturbed else "replica" for member in cluster.members
    }
    for member in cluster.members:
        each = found[member.name]
        assert each["state"] == "running"
        assert each["conn_url"] == f"postgres://{member.host.address}:{member.postgres_port}/postgres"
        assert each["api_url"] == f"{member.rest_url}/patroni"
        assert (type(each["xlog_location"]), each["xlog_location"] > 0) == (int, True)
        assert each["timeline"] == undisturbed.says()["timeline"]
        assert each.get("replication_state") == (None if member is undisturbed else "streaming")


def test_the_leaders_position_is_in_status_and_goes_on(cluster: Cluster, undisturbed: Member) -> None:
    def status() -> dict:
        return json.loads(value(cluster, "status"))

    # It is written once in a loop_wait: a leader of a moment ago may have made its slots since. And a slot outlives its
    # member by `member_slots_ttl`: that of one which an earlier test started may be there, too.
    names = {member.name for member in cluster.replicas()}
    before = wait_until("every replica has its slot", lambda: names <= set((seen := status())["slots"]) and seen)
    assert type(before["optime"]) is int
    sql(undisturbed, "INSERT INTO witness SELECT generate_series(1, 1000)")
    wait_until("it went on", lambda: status()["optime"] > before["optime"])


def test_the_other_keys_have_patronis_shapes(cluster: Cluster, undisturbed: Member, hamgr: Cli) -> None:
    (row,) = sql(undisturbed, "SELECT system_identifier::text FROM pg_control_system()")
    assert value(cluster, "initialize") == row[0]
    assert json.loads(value(cluster, "config"))["ttl"] == 5
    assert json.loads(value(cluster, "failsafe")) == {
        member.name: f"{member.rest_url}/patroni" for member in cluster.members
    }
    asked = {"leader": undisturbed.name, "candidate": cluster.replicas()[0].name}
    at = "2099-01-01T03:00:00+00:00"
    body = {**asked, "scheduled_at": at}
    assert requests.post(f"{undisturbed.rest_url}/switchover", json=body, timeout=10).status_code == 202
    try:
        kept = json.loads(value(cluster, "failover"))
        assert datetime.fromisoformat(kept.pop("scheduled_at")) == datetime.fromisoformat(at)
        assert kept == asked
    finally:
        assert requests.delete(f"{undisturbed.rest_url}/switchover", timeout=10).status_code == 200


def test_the_synchronous_set_is_a_list_of_names(cluster: Cluster, undisturbed: Member, hamgr: Cli) -> None:
    names = {member.name for member in cluster.replicas()}
    try:
        assert hamgr("edit-config", "-s", "synchronous_mode=on", "--force").status == 0
        kept = wait_until(
            "there is a set",
            lambda: (seen := json.loads(value(cluster, "sync") or "{}")).get("sync_standby") and seen,
        )
        assert kept["leader"] == undisturbed.name
        assert set(kept["sync_standby"].split(",")) <= names
        assert type(kept["quorum"]) is int
    finally:
        assert hamgr("edit-config", "-s", "synchronous_mode=null", "--force").status == 0
    wait_until("the set is gone", lambda: not json.loads(value(cluster, "sync") or "{}").get("sync_standby"))


def test_templates_follow_a_change_of_leader_and_never_name_a_third(cluster: Cluster, hamgr: Cli) -> None:
    former, successor = cluster.need_leader(), cluster.replicas()[0]
    before = json.loads(value(cluster, "history") or "[]")
    revision = revision_of(cluster)
    said = hamgr("switchover", "--leader", former.name, "--candidate", successor.name, "--force")
    assert said.status == 0, said.err
    assert cluster.wait_until_settled(30.0) is successor
    events = leaders_since(cluster, revision, successor.name)
    # The key was never away, so that no address was without a host.
    assert {kind for kind, _ in events} == {"PUT"}
    assert {name for _, name in events} <= {former.name, successor.name}
    where = pgbouncer_database(cluster)
    assert where == f"host={successor.host.address} port={successor.postgres_port}"
    with psycopg.connect(f"{where} user=postgres dbname=postgres", password=successor.password) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    lines = wait_until(
        "the change is in history", lambda: len(kept := json.loads(value(cluster, "history"))) > len(before) and kept
    )
    timeline, lsn, reason, timestamp, name = lines[-1]
    assert (type(timeline), type(lsn), type(reason), name) == (int, int, str, successor.name)
    assert datetime.fromisoformat(timestamp).tzinfo is not None
