"""The samples of /metrics: one snapshot, as numbers."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from hamgr.api.port import Snapshot
from hamgr.core.health import is_leading, is_writable_primary, lag_bytes, replication_state, sync_role
from hamgr.core.pipeline import record_of
from hamgr.core.portrait import PATRONI_VERSION, server_role, server_state
from hamgr.core.reasons import Code
from hamgr.core.scene import Scene
from hamgr.core.server import Vital
from hamgr.core.standing import WATCHDOG_STATES, GuardStanding
from hamgr.core.state import State
from hamgr.core.tally import Histogram, Tally
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

STATE_UNKNOWN = -1
LEADERS_CHECKS = ("answer", Vital.CONNECTION.value, Vital.COMMIT.value, Vital.DATA_DISK.value)
"""Counted from zero on, so that the first refusal of each is seen as an increase."""

Row = tuple[str, float | None]
"""Metric name and value; None: not known, no sample."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A number under a name; `labels` are the values of the metric's own labels, in the table's order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


def samples(snapshot: Snapshot, now: Instant, wall: WallTime) -> Iterator[Sample]:
    """All but the histograms. `wall` is the wall clock at `now`."""
    state = snapshot.state
    rows = (
        *_server_rows(state),
        *_agent_rows(state, now, wall),
        *_lead_rows(snapshot, now),
        *_replication_rows(state, wall),
        *_guard_rows(state, snapshot.guard),
    )
    for name, value in rows:
        if value is not None:
            yield Sample(name, float(value))
    yield Sample("hamgr_build_info", 1.0, (state.me.version,))
    yield Sample("hamgr_reason", 1.0, (snapshot.reason_code,))
    yield from _refusals(snapshot.tally)
    yield from _vitals(state)
    yield from _walsenders(state)
    if snapshot.guard is not None:
        for word in WATCHDOG_STATES:
            yield Sample("hamgr_watchdog_state", float(word == snapshot.guard.watchdog), (word,))
    for stage, count in snapshot.tally.over_budget.items():
        yield Sample("hamgr_failover_stages_over_budget_total", count, (stage,))
    yield from _last_failover(state)


def histograms(tally: Tally) -> Iterator[tuple[str, tuple[str, ...], Histogram]]:
    """Metric name, values of its own labels, what was observed: from the agent's start on, also of what was not yet."""
    for stage, histogram in tally.stages.items():
        yield "hamgr_failover_stage_seconds", (stage,), histogram
    yield "hamgr_failover_gap_seconds", (), tally.gaps


def _server_rows(state: State) -> tuple[Row, ...]:
    server, role = state.server, server_role(state.server)
    word, standby = server_state(state), sync_role(state, state.me.name)
    is_replica = role == "replica"
    return (
        ("patroni_postgres_running", word == "running"),
        ("patroni_postgres_state", STATE_NUMBERS.get(word, STATE_UNKNOWN)),
        ("patroni_postmaster_start_time", epoch_of(server.started_at)),
        ("patroni_primary", role == "primary"),
        ("patroni_xlog_location", server.written_lsn if server.is_primary else 0),
        ("patroni_standby_leader", 0),
        ("patroni_replica", is_replica),
        ("patroni_sync_standby", is_replica and standby == "sync_standby"),
        ("patroni_quorum_standby", is_replica and standby == "quorum_standby"),
        ("patroni_xlog_received_location", server.received_lsn if server.is_replica else 0),
        ("patroni_xlog_replayed_location", server.replayed_lsn if server.is_replica else 0),
        ("patroni_xlog_replayed_timestamp", epoch_of(server.replayed_at)),
        ("patroni_xlog_paused", server.replay_paused),
        ("patroni_postgres_streaming", replication_state(state) == "streaming"),
        ("patroni_postgres_in_archive_recovery", 0),
        ("patroni_postgres_server_version", server.server_version if server.answered else 0),
        ("patroni_postgres_timeline", server.timeline),
        ("patroni_pending_restart", server.pending_restart),
    )


def _agent_rows(state: State, now: Instant, wall: WallTime) -> tuple[Row, ...]:
    cluster, tags = state.cluster, state.me.tags
    return (
        ("patroni_version", version_number(PATRONI_VERSION)),
        ("patroni_cluster_unlocked", cluster is None or cluster.leader is None),
        ("patroni_failsafe_mode_is_active", Scene(state, now).leads_by_peers),
        ("patroni_failsafe_mode_enabled", state.policy.failsafe_mode),
        ("patroni_failsafe_member", cluster is not None and state.me.name in cluster.roster),
        ("patroni_dcs_last_seen", int(wall - (now - cluster.seen_at)) if cluster else 0),
        ("patroni_is_paused", state.policy.pause),
        ("patroni_failover_priority", tags.failover_priority if tags.may_lead else 0),
        ("hamgr_noloadbalance", tags.noloadbalance),
    )


def _lead_rows(snapshot: Snapshot, now: Instant) -> tuple[Row, ...]:
    state, lease = snapshot.state, snapshot.state.lease
    leads, deadline = is_leading(state, now), Scene(state, now).deadline
    return (
        ("hamgr_term", state.cluster.term if state.cluster else None),
        ("hamgr_leader", leads),
        ("hamgr_writable", is_writable_primary(state, now)),
        ("hamgr_lease_ttl_seconds", state.policy.ttl_s),
        ("hamgr_lease_age_seconds", None if lease.confirmed_at is None else now - lease.confirmed_at),
        ("hamgr_lease_deadline_seconds", None if lease.deadline is None else lease.deadline - now),
        ("hamgr_leader_deadline_seconds", deadline - now if leads and deadline is not None else None),
        ("hamgr_store_up", not state.store_error),
        ("hamgr_loop_age_seconds", now - snapshot.loop_ran_at),
        ("hamgr_loop_changes_total", snapshot.changed),
        ("hamgr_actions_under_way", len(state.under_way)),
        ("hamgr_action_failures", sum(failure.count for failure in state.failures)),
        ("hamgr_config_problems", len(state.policy_problems)),
        # The first term is the cluster's making, each later one a change of leader.
        ("hamgr_failovers_total", max(0, state.cluster.term - 1) if state.cluster else None),
    )


def _replication_rows(state: State, wall: WallTime) -> tuple[Row, ...]:
    cluster, answers = state.cluster, state.server.answered
    sync = cluster.sync if cluster is not None and state.policy.synchronous_mode != "off" else None
    return (
        ("hamgr_replication_lag_bytes", lag_bytes(state) if answers else None),
        ("hamgr_receive_lag_bytes", lag_bytes(state, by_received=True) if answers else None),
        ("hamgr_replication_lag_seconds", lag_seconds(state, wall)),
        ("hamgr_roster_members", len(cluster.roster) if cluster else None),
        ("hamgr_sync_electorate", len(sync.members) if sync else None),
        ("hamgr_diverged", state.diverged),
    )


def lag_seconds(state: State, wall: WallTime) -> float | None:
    """For how long a replica has not replayed what there is; None where nobody knows.

    An idle cluster has no young transaction and no lag either: only WAL that waits for replay makes one.
    """
    server = state.server
    if not server.answered or lag_bytes(state) == 0:
        return 0.0 if server.answered else None
    replayed_at = epoch_of(server.replayed_at)
    return max(0.0, wall - replayed_at) if replayed_at else None


def _guard_rows(state: State, guard: GuardStanding | None) -> tuple[Row, ...]:
    alive: Row = ("hamgr_guard_alive", state.guard_alive)
    sentry: Row = ("hamgr_sentry", state.server.has_sentry if state.server.is_primary else None)
    if guard is None:
        return (alive, sentry)
    return (
        alive,
        sentry,
        ("hamgr_guard_armed", guard.is_armed),
        ("hamgr_guard_stand_in", guard.is_stand_in),
        ("hamgr_guard_memory_locked", guard.memory_locked),
        ("hamgr_guard_realtime", guard.realtime),
        ("hamgr_agent_restarts_total", guard.agent_restarts),
    )


def _vitals(state: State) -> Iterator[Sample]:
    """A check that has not come to an end yet has no sample."""
    ill = {illness.vital for illness in state.illnesses}
    for vital in sorted({*ill, *dict(state.vitals_at)}, key=lambda vital: vital.value):
        yield Sample("hamgr_vital_ok", vital not in ill, (vital.value,))


def _refusals(tally: Tally) -> Iterator[Sample]:
    counts = {(Code.LEADING.value, check): 0 for check in LEADERS_CHECKS} | dict(tally.refusals)
    for labels, count in counts.items():
        yield Sample("hamgr_permits_refused_total", count, labels)


def _walsenders(state: State) -> Iterator[Sample]:
    """What a primary sees of the members that stream from it; programs that stream besides are not counted."""
    if not state.server.is_primary or state.cluster is None:
        return
    members = {member.name for member in state.cluster.members}
    senders = {s.application_name: s for s in state.server.walsenders if s.application_name in members}
    yield Sample("hamgr_streaming_replicas", sum(sender.state == "streaming" for sender in senders.values()))
    for name, sender in sorted(senders.items()):
        if sender.flush_lsn:
            lag = max(0, state.server.written_lsn - sender.flush_lsn)
            yield Sample("hamgr_replica_flush_lag_bytes", lag, (name,))


def _last_failover(state: State) -> Iterator[Sample]:
    """The last change of leader that made this member the leader; stages that nobody saw have no sample."""
    if state.passage is None:
        return
    record = record_of(state.passage, state.me.name, WallTime(0.0), {})
    for stage in record.stages:
        if stage.start_s is not None and stage.end_s is not None:
            yield Sample("hamgr_last_failover_stage_seconds", stage.end_s - stage.start_s, (stage.name,))
    if record.at_risk_bytes is not None:
        yield Sample("hamgr_failover_at_risk_bytes", record.at_risk_bytes)


def version_number(version: str) -> int:
    """40105 for 4.1.5."""
    parts = [part for part in version.split(".")[:3] if part.isdigit()]
    return int("".join(part.zfill(2) for part in parts) or "0")


def epoch_of(timestamp: str) -> float:
    """Seconds since 1970 of PostgreSQL's '2026-11-23 20:00:00.123+00'; 0 for none, as Patroni has it."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return 0.0
    return moment.timestamp() if moment.tzinfo else float(calendar.timegm(moment.timetuple()))
