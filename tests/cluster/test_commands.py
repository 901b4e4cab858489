"""Every command against a real cluster, as an operator types it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import requests

from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import Cli, lag_of, raw, sql, term, wait_until

LAG_LIMIT_BYTES = 1024 * 1024
"""maximum_lag_on_failover, by default."""

pytestmark = pytest.mark.cluster


def started_at(member: Member) -> str:
    return str(sql(member, "SELECT pg_postmaster_start_time()")[0][0])


def shown(member: Member, parameter: str) -> str:
    return str(sql(member, f"SHOW {parameter}")[0][0])


def test_list_names_every_member_with_role_and_state(cluster: Cluster, undisturbed: Member, hamgr: Cli) -> None:
    others = {member.name: ("Replica", "streaming") for member in cluster.members}
    expected = {**others, undisturbed.name: ("Leader", "running")}

    def listed() -> list[dict[str, Any]]:
        """The rows, once they are those of the three: a spare that was ended is listed until its lease runs out."""
        rows = hamgr("list", "-f", "json").value
        return rows if {row["Member"]: (row["Role"], row["State"]) for row in rows} == expected else []

    rows = wait_until("the list names all three", listed)
    assert {row["TL"] for row in rows} == {undisturbed.says()["timeline"]}


def test_topology_shows_the_leader_first(cluster: Cluster, undisturbed: Member, hamgr: Cli) -> None:
    said = hamgr("topology")
    assert said.status == 0
    places = {member.name: said.out.index(member.name) for member in cluster.members}
    assert min(places, key=lambda name: places[name]) == undisturbed.name


def test_version_of_every_member_is_shown(cluster: Cluster, hamgr: Cli) -> None:
    said = hamgr("version", "drill")
    assert said.status == 0
    assert all(f"{member.name}: hamgr" in said.out for member in cluster.members)


def test_switchover_is_in_history_and_on_record(cluster: Cluster, hamgr: Cli) -> None:
    former, successor = cluster.need_leader(), cluster.replicas()[0]
    said = hamgr("switchover", "--leader", former.name, "--candidate", successor.name, "--force")
    assert said.status == 0, said.err
    assert cluster.wait_until_settled(30.0) is successor
    records = hamgr("failovers", "-f", "json").value
    assert (records[0]["cause"], records[0]["former"], records[0]["leader"]) == (
        "switchover",
        former.name,
        successor.name,
    )
    assert hamgr("failovers", str(records[0]["term"]), "-f", "json").value == records[0]
    assert hamgr("failovers", "9999").status == 1
    history = hamgr("history", "-f", "json").value
    assert history[-1]["New Leader"] == successor.name


def test_of_two_switchovers_at_once_one_is_carried_out_and_one_refused(cluster: Cluster, hamgr: Cli) -> None:
    leader, (one, other) = cluster.need_leader(), cluster.replicas()
    before = term(cluster)
    asked = [
        hamgr.start("switchover", "--leader", leader.name, "--candidate", candidate.name, "--force")
        for candidate in (one, other)
    ]
    errors = [command.communicate(timeout=60)[1] for command in asked]
    codes = [command.returncode for command in asked]
    assert sorted(codes) == [0, 1], errors
    assert cluster.wait_until_settled(30.0) is (one, other)[codes.index(0)]
    assert term(cluster) == before + 1


@pytest.mark.parametrize("candidate", ["db9", "leader"])
def test_switchover_to_a_member_that_cannot_lead_is_refused(
    cluster: Cluster, undisturbed: Member, hamgr: Cli, candidate: str
) -> None:
    name = undisturbed.name if candidate == "leader" else candidate
    said = hamgr("switchover", "--candidate", name, "--force")
    assert said.status == 1
    assert name in said.err
    answer = requests.post(
        f"{undisturbed.rest_url}/switchover", json={"leader": undisturbed.name, "candidate": name}, timeout=10
    )
    assert answer.status_code in (400, 412)


def test_switchover_to_a_member_that_lags_is_refused(cluster: Cluster, undisturbed: Member, hamgr: Cli) -> None:
    replica = cluster.replicas()[0]
    (receiver,) = sql(replica, "SELECT pid FROM pg_stat_wal_receiver")[0]
    os.kill(receiver, signal.SIGSTOP)
    try:
        sql(undisturbed, "CREATE TABLE ballast AS SELECT repeat('x', 100) FROM generate_series(1, 200000)")
        wait_until("the leader knows the lag", lambda: lag_of(cluster, replica) > LAG_LIMIT_BYTES)
        said = hamgr("switchover", "--candidate", replica.name, "--force")
        assert said.status == 1
        assert "behind" in said.err
        answer = requests.post(
            f"{undisturbed.rest_url}/switchover",
            json={"leader": undisturbed.name, "candidate": replica.name},
            timeout=10,
        )
        assert answer.status_code == 412
        assert "behind" in answer.text
    finally:
        os.kill(receiver, signal.SIGCONT)
        sql(undisturbed, "DROP TABLE IF EXISTS ballast")


def test_failover_needs_a_candidate_that_is_there(undisturbed: Member, hamgr: Cli) -> None:
    assert hamgr("failover", "--force").status == 1
    assert hamgr("failover", "--candidate", "db9", "--force").status == 1


def test_server_parameter_changes_on_all_members_by_rest_and_by_command(
    cluster: Cluster, undisturbed: Member, hamgr: Cli
) -> None:
    patch = {"postgresql": {"parameters": {"work_mem": "7MB"}}}
    answer = requests.patch(f"{undisturbed.rest_url}/config", json=patch, timeout=10)
    assert answer.status_code == 200, answer.text
    wait_until("all show 7MB", lambda: {shown(member, "work_mem") for member in cluster.members} == {"7MB"})
    assert "work_mem: 7MB" in hamgr("show-config").out
    assert hamgr("edit-config", "-p", "work_mem=null", "--force").status == 0
    wait_until("all show the default", lambda: {shown(member, "work_mem") for member in cluster.members} == {"4MB"})


@pytest.mark.parametrize("change", [("-s", "ttl=1"), ("-s", "tll=30"), ("-s", "loop_wait=soon")])
def test_configuration_with_errors_is_refused_and_not_written(
    cluster: Cluster, undisturbed: Member, hamgr: Cli, change: tuple[str, str]
) -> None:
    before = raw(cluster, "config")
    said = hamgr("edit-config", *change, "--force")
    assert said.status == 1
    assert change[1].partition("=")[0] in said.err
    assert raw(cluster, "config") == before


def test_parameter_that_the_server_refuses_leaves_all_servers_as_they_are(
    cluster: Cluster, undisturbed: Member, hamgr: Cli
) -> None:
    assert hamgr("edit-config", "-p", "work_mem=plenty", "--force").status == 0
    wait_until("it is in the log", lambda: "plenty" in undisturbed.log.read_text(errors="replace"))
    assert {shown(member, "work_mem") for member in cluster.members} == {"4MB"}
    assert hamgr("edit-config", "-p", "work_mem=null", "--force").status == 0


def test_restart_of_a_replica_and_of_the_primary_moves_nobody(
    cluster: Cluster, undisturbed: Member, hamgr: Cli
) -> None:
    for member in (cluster.replicas()[0], undisturbed):
        before = started_at(member)
        said = hamgr("restart", "drill", member.name, "--force")
        assert said.status == 0, said.err
        assert started_at(member) != before
        cluster.wait_until_settled(30.0)


def test_restart_that_a_parameter_needs_is_shown_as_pending_and_carried_out(
    cluster: Cluster, undisturbed: Member, hamgr: Cli
) -> None:
    assert hamgr("edit-config", "-p", "max_connections=310", "--force").status == 0
    wait_until(
        "all wait for a restart", lambda: all(member.says().get("pending_restart") for member in cluster.members)
    )
    assert hamgr("restart", "drill", "--pending", "--force").status == 0
    cluster.wait_until_settled(30.0)
    assert {shown(member, "max_connections") for member in cluster.members} == {"310"}


def test_reload_reaches_every_member(undisturbed: Member, hamgr: Cli) -> None:
    assert hamgr("reload", "drill", "--force").status == 0


def test_replica_is_copied_from_scratch_and_its_progress_shown(
    cluster: Cluster, undisturbed: Member, hamgr: Cli
) -> None:
    replica = cluster.replicas()[0]
    inode = (replica.data_dir / "PG_VERSION").stat().st_ino
    said = hamgr("reinit", "drill", replica.name, "--force", "--wait")
    assert said.status == 0, said.err
    assert "creating replica" in said.out
    cluster.wait_until_settled(30.0)
    assert (replica.data_dir / "PG_VERSION").stat().st_ino != inode


def test_leader_is_not_copied_from_scratch(undisturbed: Member, hamgr: Cli) -> None:
    said = hamgr("reinit", "drill", undisturbed.name, "--force")
    assert said.status == 1
    assert undisturbed.name in said.err


def test_unknown_member_is_named(undisturbed: Member, hamgr: Cli) -> None:
    for command in (("restart", "drill", "db9"), ("reinit", "drill", "db9"), ("reload", "drill", "db9")):
        said = hamgr(*command, "--force")
        assert said.status == 1
        assert "db9" in said.err


def test_paused_cluster_does_not_fail_over_and_resume_heals_it(cluster: Cluster, hamgr: Cli) -> None:
    leader, before = cluster.need_leader(), term(cluster)
    assert hamgr("pause", "--wait").status == 0
    assert hamgr("pause").status == 1
    assert "Maintenance mode: on" in hamgr("list").out
    os.kill(leader.postmaster_pid(), signal.SIGKILL)
    wait_until("the leader's server is seen to be down", lambda: leader.standing() is None and not leader.is_leader())
    seen = leader.says()["dcs_last_seen"]
    wait_until("more than a lease has passed", lambda: leader.says()["dcs_last_seen"] > seen + 6, 20.0)
    assert term(cluster) == before
    assert not any(member.is_leader() for member in cluster.members)
    assert hamgr("resume", "--wait").status == 0
    cluster.wait_until_settled(45.0)
    assert hamgr("resume").status == 1
