"""GET /metrics: Patroni's names, so that its dashboards and alerts keep working, and what it lacks as hamgr_*.

Where a value is not known a sample is missing, except where Patroni's own convention is a 0.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hamgr.api.port import AgentPort, Snapshot
from hamgr.core.health import is_leading, is_writable_primary, lag_bytes, replication_state, sync_role
from hamgr.core.pipeline import record_of
from hamgr.core.portrait import server_role, server_state
from hamgr.core.scene import Scene
from hamgr.core.state import State
from hamgr.core.units import Instant, WallTime

STATE_NUMBERS = {
    "initializing new cluster": 0,
    "initdb failed": 1,
    "running custom bootstrap script": 2,
    "custom bootstrap failed": 3,
    "creating replica": 4,
    "running": 5,
    "starting": 6,
    "starting after custom bootstrap": 7,
    "start failed": 8,
    "restarting": 9,
    "restart failed": 10,
    "stopping": 11,
    "stopped": 12,
    "stop failed": 13,
    "crashed": 14,
}
"""Patroni's numbers of patroni_postgres_state."""

LABELS = ("scope", "name")

Row = tuple[str, str, float | None]
"""Metric name, what it says, value; None: not known, no sample."""


def exposition(port: AgentPort, wall: WallTime) -> bytes:
    """All metrics of this member now, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(port, wall))
    return generate_latest(registry)


class SnapshotCollector(Collector):
    """Metrics of one snapshot; nothing is counted in between."""

    def __init__(self, port: AgentPort, wall: WallTime) -> None:
        self._port = port
        self._wall = wall

    def collect(self) -> Iterator[Metric]:
        """Every family once."""
        snapshot, now = self._port.snapshot(), self._port.now()
        labels = (self._port.scope, snapshot.state.me.name)
        rows = (
            *_patroni_server_rows(snapshot.state),
            *_patroni_agent_rows(snapshot.state, now, self._wall, self._port.version),
            *_own_rows(snapshot, now),
        )
        for name, text, value in rows:
            if value is not None:
                yield _gauge(name, text, labels, value)
        yield _reason(snapshot, labels)
        yield _vitals(snapshot.state, labels)
        yield _permits_refused(snapshot, labels)
        if snapshot.state.cluster is not None:
            yield _failovers(snapshot.state.cluster.term, labels)
        if snapshot.state.passage is not None:
            yield from _passage(snapshot.state, labels)


def _gauge(name: str, text: str, labels: tuple[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=LABELS)
    family.add_metric(labels, value)
    return family


def _patroni_server_rows(state: State) -> tuple[Row, ...]:
    server, role = state.server, server_role(state.server)
    word, standby = server_state(state), sync_role(state, state.me.name)
    is_replica = role == "replica"
    on_replica = server.is_replica
    return (
        ("patroni_postgres_running", "1 if PostgreSQL runs.", word == "running"),
        ("patroni_postgres_state", "State of PostgreSQL as a number.", STATE_NUMBERS.get(word)),
        ("patroni_postmaster_start_time", "Epoch seconds since PostgreSQL runs.", epoch_of(server.started_at)),
        ("patroni_primary", "1 if PostgreSQL is primary.", role == "primary"),
        ("patroni_xlog_location", "WAL position of the primary.", server.written_lsn if server.is_primary else 0),
        ("patroni_standby_leader", "1 if this member leads a standby cluster.", 0),
        ("patroni_replica", "1 if PostgreSQL is a replica.", is_replica),
        ("patroni_sync_standby", "1 if this is a synchronous standby.", is_replica and standby == "sync_standby"),
        ("patroni_quorum_standby", "1 if this is a quorum standby.", is_replica and standby == "quorum_standby"),
        ("patroni_xlog_received_location", "Received WAL position.", server.received_lsn if on_replica else 0),
        ("patroni_xlog_replayed_location", "Replayed WAL position.", server.replayed_lsn if on_replica else 0),
        ("patroni_xlog_replayed_timestamp", "Epoch seconds of what was replayed last.", epoch_of(server.replayed_at)),
        ("patroni_xlog_paused", "1 if replay is paused.", server.replay_paused),
        ("patroni_postgres_streaming", "1 if PostgreSQL streams.", replication_state(state) == "streaming"),
        ("patroni_postgres_in_archive_recovery", "1 if it recovers from an archive.", 0),
        (
            "patroni_postgres_server_version",
            "Version of PostgreSQL, 0 if it does not run.",
            server.server_version if server.answered else 0,
        ),
        ("patroni_postgres_timeline", "Timeline, 0 if PostgreSQL does not run.", server.timeline),
        ("patroni_pending_restart", "1 if PostgreSQL needs a restart.", server.pending_restart),
    )


def _patroni_agent_rows(state: State, now: Instant, wall: WallTime, version: str) -> tuple[Row, ...]:
    cluster = state.cluster
    seen = int(wall - (now - cluster.seen_at)) if cluster else 0
    me = state.me
    return (
        ("patroni_version", "hamgr's version without periods, e.g. 000100 for 0.1.0.", _version_number(version)),
        ("patroni_cluster_unlocked", "1 if nobody leads.", cluster is None or cluster.leader is None),
        ("patroni_failsafe_mode_is_active", "1 if the lead rests on peers.", Scene(state, now).leads_by_peers),
        ("patroni_failsafe_mode_enabled", "1 if the lease may rest on peers.", state.policy.failsafe_mode),
        ("patroni_failsafe_member", "1 if this member may give a peer lease.", _in_roster(state)),
        ("patroni_dcs_last_seen", "Epoch seconds when etcd answered last.", seen),
        ("patroni_is_paused", "1 if automatic changes are off.", state.policy.pause),
        ("patroni_failover_priority", "Priority in an election, 0: may not lead.", _priority(state)),
        ("hamgr_noloadbalance", "1 if tagged noloadbalance.", me.tags.noloadbalance),
    )


def _own_rows(snapshot: Snapshot, now: Instant) -> tuple[Row, ...]:
    state = snapshot.state
    deadline = state.lease.deadline
    lag = lag_bytes(state) if state.server.answered else None
    receive_lag = lag_bytes(state, by_received=True) if state.server.answered else None
    return (
        ("hamgr_term", "Number of the present leadership.", state.cluster.term if state.cluster else None),
        ("hamgr_leader", "1 if this member leads within its deadline.", is_leading(state, now)),
        ("hamgr_writable", "1 if /primary answers 200.", is_writable_primary(state, now)),
        (
            "hamgr_lease_deadline_seconds",
            "Seconds left of the lease; no sample without a lease.",
            None if deadline is None else deadline - now,
        ),
        ("hamgr_lease_ttl_seconds", "The lease's time to live as configured.", state.policy.ttl_s),
        ("hamgr_replication_lag_bytes", "Bytes of WAL not replayed here; 0 on a primary.", lag),
        ("hamgr_receive_lag_bytes", "Bytes of WAL not received here; 0 on a primary.", receive_lag),
        ("hamgr_guard_alive", "1 if the guard's heartbeat is fresh.", state.guard_alive),
        ("hamgr_store_up", "1 if etcd's last answer was a proper one.", not state.store_error),
        ("hamgr_loop_age_seconds", "Seconds since the decision loop ran.", now - snapshot.loop_ran_at),
        ("hamgr_loop_changes", "How often state or reason changed since the agent started.", snapshot.changed),
        ("hamgr_actions_under_way", "Actions that have not ended yet.", len(state.under_way)),
        ("hamgr_action_failures", "Failures in a row, all kinds.", sum(f.count for f in state.failures)),
        ("hamgr_config_problems", "What cannot be used of the dynamic configuration.", len(state.policy_problems)),
        ("hamgr_sync_electorate", "Standbys that may lead without loss; none: no sample.", _electorate_size(state)),
        ("hamgr_diverged", "1 if the local WAL is no ancestor of the leader's.", state.diverged),
    )


def _reason(snapshot: Snapshot, labels: tuple[str, str]) -> Metric:
    family = GaugeMetricFamily("hamgr_reason", "What the last decision rests on.", labels=(*LABELS, "code"))
    family.add_metric((*labels, snapshot.reason_code), 1)
    return family


def _vitals(state: State, labels: tuple[str, str]) -> Metric:
    """A check that has not come to an end yet has no sample."""
    text = "1 if the vital check went well the last time, 0 if it did not."
    family = GaugeMetricFamily("hamgr_vital_ok", text, labels=(*LABELS, "vital"))
    ill = {illness.vital for illness in state.illnesses}
    for vital in sorted({*ill, *dict(state.vitals_at)}, key=lambda vital: vital.value):
        family.add_metric((*labels, vital.value), vital not in ill)
    return family


def _permits_refused(snapshot: Snapshot, labels: tuple[str, str]) -> Metric:
    text = "Decisions that did not let the lease be renewed, since the agent started."
    family = CounterMetricFamily("hamgr_permits_refused", text, labels=LABELS)
    family.add_metric(labels, snapshot.permits_refused)
    return family


def _electorate_size(state: State) -> int | None:
    sync = state.cluster.sync if state.cluster is not None else None
    return len(sync.members) if sync is not None and state.policy.synchronous_mode != "off" else None


def _failovers(term: int, labels: tuple[str, str]) -> Metric:
    """The first term is the cluster's making, each later one a change of leader."""
    family = CounterMetricFamily("hamgr_failovers", "Changes of leader since the cluster was made.", labels=LABELS)
    family.add_metric(labels, max(0, term - 1))
    return family


def _passage(state: State, labels: tuple[str, str]) -> Iterator[Metric]:
    """The last change of leader that made this member the leader; stages that nobody saw have no sample."""
    if state.passage is None:
        return
    record = record_of(state.passage, state.me.name, WallTime(0.0), {})
    family = GaugeMetricFamily(
        "hamgr_failover_stage_seconds", "Length of each stage of the last failover to here.", labels=(*LABELS, "stage")
    )
    for stage in record.stages:
        if stage.start_s is not None and stage.end_s is not None:
            family.add_metric((*labels, stage.name), stage.end_s - stage.start_s)
    yield family
    if record.at_risk_bytes is not None:
        text = "WAL known to be on the old leader only, in the last failover to here."
        yield _gauge("hamgr_failover_at_risk_bytes", text, labels, record.at_risk_bytes)


def _in_roster(state: State) -> bool:
    return state.cluster is not None and state.me.name in state.cluster.roster


def _priority(state: State) -> int:
    return state.me.tags.failover_priority if state.me.tags.may_lead else 0


def _version_number(version: str) -> int:
    parts = [part for part in version.split(".")[:3] if part.isdigit()]
    return int("".join(part.zfill(2) for part in parts) or "0")


def epoch_of(timestamp: str) -> float:
    """Seconds since 1970 of PostgreSQL's '2026-11-23 20:00:00.123+00'; 0 for none, as Patroni has it."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return 0.0
    return moment.timestamp() if moment.tzinfo else float(calendar.timegm(moment.timetuple()))
