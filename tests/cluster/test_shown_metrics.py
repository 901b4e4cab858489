"""/metrics of a real cluster: what records, REST and the servers say, as numbers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from hamgr.api.metric_table import LABELS, METRICS
from hamgr.drill.cluster import SCOPE, Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import Cli, sql, wait_until

pytestmark = pytest.mark.cluster

PROMTOOL = shutil.which("promtool", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
STAGES = ("detect", "fence", "vote", "elect", "promote", "writable", "routed")


def exposition(member: Member) -> str:
    answer = requests.get(f"{member.rest_url}/metrics", timeout=5)
    assert answer.status_code == 200
    return answer.text


def shown(member: Member) -> dict[str, float]:
    """Samples as '<name>{<own labels>}', without those of every sample."""
    found = {}
    for family in text_string_to_metric_families(exposition(member)):
        for sample in family.samples:
            assert (sample.labels["scope"], sample.labels["name"]) == (SCOPE, member.name)
            own = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()) if key not in LABELS)
            found[f"{sample.name}{{{own}}}" if own else sample.name] = sample.value
    return found


def counts(samples: dict[str, float]) -> dict[str, float]:
    return {stage: samples[f'hamgr_failover_stage_seconds_count{{stage="{stage}"}}'] for stage in STAGES}


def sums(samples: dict[str, float]) -> dict[str, float]:
    return {stage: samples[f'hamgr_failover_stage_seconds_sum{{stage="{stage}"}}'] for stage in STAGES}


def test_metrics_agree_with_rest_and_the_servers(cluster: Cluster, undisturbed: Member) -> None:
    for member in cluster.members:
        leads = member is undisturbed
        samples, body = shown(member), member.says()
        expected = {
            "hamgr_leader": leads,
            "hamgr_writable": leads,
            "patroni_primary": leads,
            "patroni_replica": not leads,
            "patroni_postgres_streaming": not leads,
            "patroni_postgres_timeline": body["timeline"],
            "hamgr_term": body["term"],
            f'hamgr_build_info{{version="{body["hamgr"]["version"]}"}}': 1,
            f'hamgr_reason{{code="{body["reason"]}"}}': 1,
            "hamgr_guard_alive": 1,
            "hamgr_guard_armed": leads,
            "hamgr_guard_stand_in": body["guard"]["stand_in"],
            "hamgr_guard_memory_locked": body["guard"]["memory_locked"],
            "hamgr_guard_realtime": body["guard"]["realtime"],
            f'hamgr_watchdog_state{{state="{body["guard"]["watchdog"]}"}}': 1,
            "hamgr_store_up": 1,
            "hamgr_roster_members": 3,
            "patroni_failsafe_mode_is_active": 0,
        }
        assert {key: samples.get(key) for key in expected} == expected
        assert 0 < samples["hamgr_lease_deadline_seconds"] < samples["hamgr_lease_ttl_seconds"]
        assert ("hamgr_leader_deadline_seconds" in samples) == leads
    samples = shown(undisturbed)
    assert samples["hamgr_streaming_replicas"] == 2
    for replica in cluster.replicas():
        assert samples[f'hamgr_replica_flush_lag_bytes{{replica="{replica.name}"}}'] >= 0


def test_lag_is_in_bytes_and_in_seconds_and_ends(cluster: Cluster, undisturbed: Member) -> None:
    replica = cluster.replicas()[0]
    sql(replica, "SELECT pg_wal_replay_pause()")
    try:
        sql(undisturbed, "INSERT INTO witness SELECT generate_series(1, 10000)")
        lags = ("hamgr_replication_lag_bytes", "hamgr_replication_lag_seconds")
        wait_until("it lags", lambda: all(shown(replica)[lag] > 0 for lag in lags))
        wait_until("the pause is shown", lambda: shown(replica)["patroni_xlog_paused"] == 1)
    finally:
        sql(replica, "SELECT pg_wal_replay_resume()")
    wait_until("it has caught up", lambda: shown(replica)["hamgr_replication_lag_seconds"] == 0)


def test_a_switchover_is_counted_once_as_it_is_on_record(cluster: Cluster, hamgr: Cli) -> None:
    former, successor = cluster.need_leader(), cluster.replicas()[0]
    before, others = shown(successor), [member for member in cluster.members if member is not successor]
    untouched = {member.name: counts(shown(member)) for member in others}
    said = hamgr("switchover", "--leader", former.name, "--candidate", successor.name, "--force")
    assert said.status == 0, said.err
    cluster.wait_until_settled(30.0)
    record = wait_until("the route is on record", lambda: _routed(successor))
    lengths = {
        stage["name"]: stage["end_s"] - stage["start_s"] for stage in record["stages"] if stage["end_s"] is not None
    }
    samples = wait_until(
        "the route is counted", lambda: counts(seen := shown(successor))["routed"] > counts(before)["routed"] and seen
    )
    grown = {stage: counts(samples)[stage] - counts(before)[stage] for stage in STAGES}
    assert grown == {stage: stage in lengths for stage in STAGES}
    for stage, length in lengths.items():
        assert sums(samples)[stage] - sums(before)[stage] == pytest.approx(length, abs=0.001), stage
    assert samples["hamgr_failover_gap_seconds_count"] - before["hamgr_failover_gap_seconds_count"] == 1
    assert {member.name: counts(shown(member)) for member in others} == untouched
    assert {shown(member)["hamgr_failovers_total"] for member in cluster.members} == {record["term"] - 1}


def _routed(leader: Member) -> dict[str, object] | None:
    (record,) = requests.get(f"{leader.rest_url}/failovers?limit=1", timeout=5).json()
    routed = record["stages"][-1]
    return record if routed["name"] == "routed" and routed["end_s"] is not None else None


def test_a_permit_refused_for_want_of_an_answer_is_counted_under_that_name(
    cluster: Cluster, undisturbed: Member
) -> None:
    key = 'hamgr_permits_refused_total{check="answer",reason="leading"}'
    before = shown(undisturbed)[key]
    rows = sql(
        undisturbed,
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_walfile_name(%' AND pid <> pg_backend_pid()",
    )
    agents = [pid for (pid,) in rows]
    assert agents
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until("a permit was refused", lambda: shown(undisturbed)[key] > before)
    finally:
        for pid in agents:
            os.kill(pid, signal.SIGCONT)
    wait_until("it leads on", undisturbed.is_leader)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_has_nothing_against_what_a_member_shows(cluster: Cluster) -> None:
    for member in cluster.members:
        text = exposition(member)
        ran = subprocess.run(
            [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        names = {family.name for family in text_string_to_metric_families(text)}
        assert names <= {name.removesuffix("_total") for name in METRICS}
