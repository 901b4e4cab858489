"""GET /metrics: every number of one snapshot, under names that Prometheus and Patroni's users know."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from fake_agent import GUARD, MIB, NOW, FakeAgent, primary_state, replica_state, view
from prometheus_client.parser import text_string_to_metric_families

from hamgr.api.metric_table import LABELS, METRICS, PAGE, markdown
from hamgr.core.cluster import SyncState
from hamgr.core.pipeline import STAGES, Passage
from hamgr.core.policy import Policy
from hamgr.core.server import Illness, Phase, Vital, Walsender
from hamgr.core.state import Lease, Myself
from hamgr.core.tally import Histogram, Tally
from hamgr.core.units import Instant, Lsn, Term

ROOT = Path(__file__).parents[2]
PATRONIS = (
    *("version", "postgres_running", "postmaster_start_time", "primary", "xlog_location", "standby_leader", "replica"),
    *("sync_standby", "quorum_standby", "xlog_received_location", "xlog_replayed_location", "xlog_replayed_timestamp"),
    *("xlog_paused", "postgres_streaming", "postgres_in_archive_recovery", "postgres_server_version"),
    *("cluster_unlocked", "failsafe_mode_is_active", "failsafe_mode_enabled", "failsafe_member", "postgres_timeline"),
    *("dcs_last_seen", "pending_restart", "is_paused", "postgres_state", "failover_priority"),
)
"""Of Patroni 4.1.5 and of what it had before."""

NOT_BASE = ("milliseconds", "minutes", "hours", "kilobytes", "megabytes", "percent")

Samples = dict[str, float]


async def shown(client: aiohttp.ClientSession) -> Samples:
    """Samples as '<name>{<own labels>}': those of every sample are taken off."""
    async with client.get("/metrics") as answer:
        assert answer.status == 200
        text = await answer.text()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key not in LABELS}
            own = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
            key = f"{sample.name}{{{own}}}" if own else sample.name
            assert key not in found, key
            found[key] = sample.value
    return found


def passage(**marks: float) -> Passage:
    """The change of leader that made member one the leader in term 4, the host of two being lost."""
    return Passage(
        Term(4),
        "leader_lost",
        "two",
        Instant(10.0),
        fault_at=Instant(8.0),
        former_lsn=Lsn(200),
        own_lsn=Lsn(50),
        **{f"{name}_at": Instant(at) for name, at in marks.items()},
    )


async def test_every_sample_names_cluster_and_member(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = list(text_string_to_metric_families(await answer.text()))
    labels = [sample.labels for family in families for sample in family.samples]
    assert labels
    assert all((each["scope"], each["name"]) == ("demo", "one") for each in labels)


async def test_a_leader_is_shown_under_patronis_names_and_hamgrs(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.become(primary_state(passage=passage(voted=10.5, elected=10.75)))
    samples = await shown(client)
    expected = {
        "patroni_primary": 1,
        "patroni_replica": 0,
        "patroni_postgres_running": 1,
        "patroni_postgres_state": 5,
        "patroni_postmaster_start_time": 1795464000.123456,
        "patroni_xlog_location": MIB + 100,
        "patroni_postgres_server_version": 150008,
        "patroni_postgres_timeline": 3,
        "patroni_cluster_unlocked": 0,
        "patroni_version": 40105,
        'hamgr_build_info{version="0.1.0"}': 1,
        "hamgr_term": 4,
        "hamgr_leader": 1,
        "hamgr_writable": 1,
        "hamgr_lease_deadline_seconds": 3,
        "hamgr_leader_deadline_seconds": 3,
        "hamgr_failovers_total": 3,
        "hamgr_replication_lag_bytes": 0,
        "hamgr_replication_lag_seconds": 0,
        "hamgr_failover_at_risk_bytes": 150,
        'hamgr_last_failover_stage_seconds{stage="detect"}': 2,
        'hamgr_last_failover_stage_seconds{stage="vote"}': 0.5,
        'hamgr_reason{code="leading"}': 1,
    }
    assert {key: samples.get(key) for key in expected} == expected
    assert 'hamgr_last_failover_stage_seconds{stage="promote"}' not in samples


async def test_every_metric_of_patroni_is_there(client: aiohttp.ClientSession) -> None:
    samples = await shown(client)
    assert [name for name in PATRONIS if f"patroni_{name}" not in samples] == []


async def test_every_metric_of_the_table_is_shown_by_some_member(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    """What no state could bring about would be a promise on the page that nobody keeps."""
    synchronous = view()._replace(sync=SyncState("one", ("two",), 0))
    sender = Walsender("two", "127.0.0.1", "streaming", "sync", 1, "replicator", Lsn(MIB))
    primary = primary_state(
        passage=passage(voted=10.5),
        cluster=synchronous,
        policy=Policy(synchronous_mode="on"),
        vitals_at=((Vital.COMMIT, Instant(990.0)),),
        lease=Lease(77, Instant(NOW + 3), Term(4), confirmed_at=Instant(NOW - 0.5)),
    )
    agent.become(primary._replace(server=replace(primary.server, walsenders=(sender,))))
    async with client.get("/metrics") as answer:
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    kinds = {name: described.kind for name, described in METRICS.items()}
    assert {name.removesuffix("_total"): kind for name, kind in kinds.items()} == {
        name: family.type for name, family in families.items()
    }
    assert all(family.samples for family in families.values())


def test_names_and_units_are_what_prometheus_wants() -> None:
    for name, described in METRICS.items():
        assert re.fullmatch(r"(hamgr|patroni)_[a-z][a-z0-9]*(_[a-z0-9]+)*", name), name
        assert described.text.endswith("."), name
        if name.startswith("hamgr_"):
            assert name.endswith("_total") == (described.kind == "counter"), name
            assert described.kind != "histogram" or name.endswith("_seconds"), name
            assert not name.endswith(NOT_BASE), name


def test_the_page_has_the_table_of_all_metrics() -> None:
    assert markdown() in (ROOT / PAGE).read_text(), "run python -m hamgr.api.metric_table"


async def test_vital_signs_electorate_and_refused_permits_are_shown(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    well = ((Vital.COMMIT, Instant(990.0)), (Vital.DATA_DISK, Instant(900.0)))
    ill = (Illness(Vital.DATA_DISK, "no space left", Instant(995.0), is_hung=False),)
    synchronous = view()._replace(sync=SyncState("one", ("two",), 0))
    policy = Policy(synchronous_mode="on")
    agent.become(primary_state(vitals_at=well, illnesses=ill, cluster=synchronous, policy=policy))
    agent.tally = Tally(refusals={("leading", "commit"): 7, ("stopped", ""): 1})
    samples = await shown(client)
    expected = {
        'hamgr_vital_ok{vital="commit"}': 1,
        'hamgr_vital_ok{vital="data_disk"}': 0,
        "hamgr_sync_electorate": 1,
        'hamgr_permits_refused_total{check="commit",reason="leading"}': 7,
        'hamgr_permits_refused_total{check="data_disk",reason="leading"}': 0,
        'hamgr_permits_refused_total{check="",reason="stopped"}': 1,
        "patroni_failsafe_mode_is_active": 0,
    }
    assert {key: samples.get(key) for key in expected} == expected
    assert 'hamgr_vital_ok{vital="connection"}' not in samples


async def test_that_the_lead_rests_on_peers_is_shown_with_their_deadline(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    lease = Lease(77, Instant(agent.at - 1), Term(4), peer_deadline=Instant(agent.at + 3))
    agent.become(primary_state(lease=lease, cluster=view()._replace(leader=None)))
    samples = await shown(client)
    assert samples["patroni_failsafe_mode_is_active"] == 1
    assert (samples["hamgr_lease_deadline_seconds"], samples["hamgr_leader_deadline_seconds"]) == (-1, 3)
    async with client.get("/patroni") as answer:
        assert (await answer.json())["failsafe_mode_is_active"] is True


async def test_a_leader_past_its_deadline_has_none_left_and_does_not_lead(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    agent.at = Instant(NOW + 4)
    samples = await shown(client)
    assert (samples["hamgr_leader"], samples["hamgr_writable"]) == (0, 0)
    assert "hamgr_leader_deadline_seconds" not in samples
    assert samples["hamgr_lease_deadline_seconds"] == -1


@pytest.mark.parametrize(("mode", "quorum"), [("on", 0), ("quorum", 1)])
async def test_a_replica_of_the_set_is_counted_as_what_the_mode_makes_it(
    client: aiohttp.ClientSession, agent: FakeAgent, mode: str, quorum: int
) -> None:
    synchronous = view()._replace(sync=SyncState("one", ("two",), 0))
    agent.become(replica_state(cluster=synchronous, policy=Policy(synchronous_mode=mode)))
    samples = await shown(client)
    assert (samples["patroni_quorum_standby"], samples["patroni_sync_standby"]) == (quorum, 1 - quorum)


async def test_a_replica_shows_its_lag_in_bytes_and_seconds(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    state = replica_state()
    agent.become(state._replace(server=replace(state.server, replayed_at="2026-11-23 20:00:00+00")))
    samples = await shown(client)
    assert samples["hamgr_replication_lag_bytes"] == 4096
    assert samples["hamgr_receive_lag_bytes"] == 1024
    assert samples["hamgr_replication_lag_seconds"] > 0
    assert samples["patroni_postgres_streaming"] == 1
    assert "hamgr_streaming_replicas" not in samples


async def test_a_replica_that_has_replayed_all_has_no_lag_however_old_the_last_transaction(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    state = replica_state()
    done = replace(state.server, received_lsn=Lsn(MIB), replayed_lsn=Lsn(MIB), replayed_at="2020-01-01 00:00:00+00")
    agent.become(state._replace(server=done))
    assert (await shown(client))["hamgr_replication_lag_seconds"] == 0


async def test_lag_of_a_server_that_does_not_answer_is_not_known(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    state = replica_state()
    agent.become(state._replace(server=replace(state.server, phase=Phase.CRASHED, answered=False)))
    samples = await shown(client)
    assert not any("_lag_" in key for key in samples)
    assert samples["patroni_postgres_state"] == 14
    agent.become(state._replace(server=replace(state.server, answered=False)))
    assert (await shown(client))["patroni_postgres_state"] == -1


async def test_a_primary_counts_the_members_that_stream_and_nobody_else(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    def sender(name: str, state: str, flushed: int) -> Walsender:
        return Walsender(name, "127.0.0.1", state, "async", 0, "replicator", Lsn(flushed))

    state = primary_state()
    senders = (sender("two", "streaming", MIB), sender("pg_receivewal", "streaming", MIB))
    agent.become(state._replace(server=replace(state.server, walsenders=senders)))
    samples = await shown(client)
    assert samples["hamgr_streaming_replicas"] == 1
    assert samples['hamgr_replica_flush_lag_bytes{replica="two"}'] == 100
    assert 'hamgr_replica_flush_lag_bytes{replica="pg_receivewal"}' not in samples
    agent.become(state._replace(server=replace(state.server, walsenders=(sender("two", "catchup", 0),))))
    samples = await shown(client)
    assert samples["hamgr_streaming_replicas"] == 0
    assert not any(key.startswith("hamgr_replica_flush_lag_bytes") for key in samples)


async def test_the_guards_standing_is_shown_in_metrics_and_in_the_status(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    expected = {
        "hamgr_guard_alive": 1,
        "hamgr_guard_armed": 1,
        "hamgr_guard_stand_in": 0,
        "hamgr_guard_memory_locked": 1,
        "hamgr_guard_realtime": 0,
        'hamgr_watchdog_state{state="off"}': 1,
        'hamgr_watchdog_state{state="failed"}': 0,
        "hamgr_agent_restarts_total": 2,
    }
    samples = await shown(client)
    assert {key: samples.get(key) for key in expected} == expected
    async with client.get("/patroni") as answer:
        body = await answer.json()
    assert body["guard"] == {
        "alive": True,
        "armed": True,
        "stand_in": False,
        "memory_locked": True,
        "realtime": False,
        "watchdog": "off",
        "agent_restarts": 2,
    }
    assert "watchdog_failed" not in body


async def test_the_guards_standing_is_fresh_though_nothing_else_changed(
    client: aiohttp.ClientSession, agent: FakeAgent
) -> None:
    async with client.get("/patroni") as answer:
        assert (await answer.json())["guard"]["watchdog"] == "off"
    agent.guard = replace(GUARD, watchdog="failed", is_stand_in=True)
    async with client.get("/patroni") as answer:
        body = await answer.json()
    assert (body["guard"]["watchdog"], body["guard"]["stand_in"], body["watchdog_failed"]) == ("failed", True, True)


async def test_stages_are_histograms_that_begin_at_zero(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    samples = await shown(client)
    for stage in STAGES:
        assert samples[f'hamgr_failover_stage_seconds_count{{stage="{stage}"}}'] == 0
        assert samples[f'hamgr_failover_stages_over_budget_total{{stage="{stage}"}}'] == 0
    agent.tally = replace(
        agent.tally,
        stages={**agent.tally.stages, "promote": Histogram().with_one(0.04).with_one(3.0).with_one(300.0)},
        gaps=Histogram().with_one(0.2),
    )
    samples = await shown(client)

    def bucket(bound: str) -> float:
        return samples[f'hamgr_failover_stage_seconds_bucket{{le="{bound}",stage="promote"}}']

    assert [bucket(bound) for bound in ("0.025", "0.05", "2.5", "5", "60", "+Inf")] == [0, 1, 1, 2, 2, 3]
    assert samples['hamgr_failover_stage_seconds_sum{stage="promote"}'] == pytest.approx(303.04)
    assert samples["hamgr_failover_gap_seconds_count"] == 1


async def test_a_member_that_knows_nothing_claims_nothing(client: aiohttp.ClientSession, agent: FakeAgent) -> None:
    agent.become(type(agent.state)(me=Myself("one")))
    agent.guard = None
    samples = await shown(client)
    assert samples["hamgr_leader"] == samples["hamgr_writable"] == 0
    unknown = ("hamgr_term", "hamgr_failovers_total", "hamgr_replication_lag_bytes", "hamgr_guard_armed")
    assert not samples.keys() & set(unknown)
