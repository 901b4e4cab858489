"""Every metric once: name, kind, labels, meaning. Exposition and docs/monitoring.md are both made from this table.

`python -m hamgr.api.metric_table` writes the table into the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]

LABELS = ("scope", "name")
"""Of every sample: the cluster and the member."""

PAGE = Path("docs/monitoring.md")
BEGIN, END = "<!-- metrics: made by python -m hamgr.api.metric_table -->", "<!-- end of metrics -->"


@dataclass(frozen=True, slots=True)
class Described:
    """One metric. A counter's name ends in `_total`, as Prometheus wants it. `labels`: beyond LABELS."""

    name: str
    text: str
    kind: Kind = "gauge"
    labels: tuple[str, ...] = ()


PATRONIS = (
    Described("patroni_version", "Version of Patroni whose interface this is, without periods: 40105 for 4.1.5."),
    Described("patroni_postgres_running", "1 if PostgreSQL runs."),
    Described("patroni_postgres_state", "State of PostgreSQL as a number, in Patroni's order; -1: not known."),
    Described("patroni_postmaster_start_time", "Epoch seconds since PostgreSQL runs, 0 if it does not."),
    Described("patroni_primary", "1 if PostgreSQL is primary."),
    Described("patroni_xlog_location", "WAL position of the primary in bytes, 0 on others."),
    Described("patroni_standby_leader", "1 if this member leads a standby cluster: never, there are none yet."),
    Described("patroni_replica", "1 if PostgreSQL is a replica."),
    Described("patroni_sync_standby", "1 if this is a synchronous standby."),
    Described("patroni_quorum_standby", "1 if this is a quorum standby."),
    Described("patroni_xlog_received_location", "Received WAL position in bytes, 0 on a primary."),
    Described("patroni_xlog_replayed_location", "Replayed WAL position in bytes, 0 on a primary."),
    Described("patroni_xlog_replayed_timestamp", "Epoch seconds of the transaction replayed last, 0 if none."),
    Described("patroni_xlog_paused", "1 if replay is paused."),
    Described("patroni_postgres_streaming", "1 if PostgreSQL streams."),
    Described("patroni_postgres_in_archive_recovery", "1 if it recovers from an archive: never."),
    Described("patroni_postgres_server_version", "Version of PostgreSQL (150008), 0 if it does not run."),
    Described("patroni_postgres_timeline", "Timeline, 0 if PostgreSQL does not run."),
    Described("patroni_pending_restart", "1 if PostgreSQL needs a restart."),
    Described("patroni_cluster_unlocked", "1 if nobody holds the leader key."),
    Described("patroni_failsafe_mode_is_active", "1 if the lead rests on the other members' promises."),
    Described("patroni_failsafe_mode_enabled", "1 if the lead may rest on promises when etcd is gone."),
    Described("patroni_failsafe_member", "1 if this member is entered, and so has a promise to give."),
    Described("patroni_dcs_last_seen", "Epoch seconds when etcd answered last."),
    Described("patroni_is_paused", "1 if automatic changes are off."),
    Described("patroni_failover_priority", "Priority in an election, 0: may not lead."),
)

OF_THE_LEAD = (
    Described("hamgr_build_info", "1; the label is the version.", labels=("version",)),
    Described("hamgr_term", "Number of the present leadership."),
    Described("hamgr_leader", "1 if this member leads within its deadline."),
    Described("hamgr_writable", "1 if /primary answers 200."),
    Described("hamgr_reason", "1; the label is the code of what the last decision rests on.", labels=("code",)),
    Described("hamgr_lease_ttl_seconds", "The lease's time to live as configured."),
    Described("hamgr_lease_age_seconds", "Since the last renewal that etcd confirmed was sent."),
    Described("hamgr_lease_deadline_seconds", "Left of this member's own lease; no sample without one."),
    Described(
        "hamgr_leader_deadline_seconds",
        "Left to the leader until its server has to be down, by lease or promises; only the leader has a sample.",
    ),
    Described(
        "hamgr_permits_refused_total",
        "Decisions that did not let the lease be renewed, by reason, and by the check of a leader's server that has "
        "not gone well for too long (answer: SQL was not answered).",
        "counter",
        ("reason", "check"),
    ),
    Described("hamgr_store_up", "1 if etcd's last answer was a proper one."),
    Described("hamgr_loop_age_seconds", "Since the decision loop ran."),
    Described("hamgr_loop_changes_total", "Changes of state since the agent started.", "counter"),
    Described("hamgr_actions_under_way", "Actions that have not ended yet."),
    Described("hamgr_action_failures", "Failures in a row, all kinds of actions together."),
    Described("hamgr_config_problems", "What cannot be used of the dynamic configuration."),
)

OF_REPLICATION = (
    Described("hamgr_replication_lag_bytes", "WAL not replayed here; 0 on a primary."),
    Described("hamgr_receive_lag_bytes", "WAL not received here; 0 on a primary."),
    Described(
        "hamgr_replication_lag_seconds",
        "Age of the transaction replayed last, if there is WAL to replay, else 0. By the wall clocks of two hosts.",
    ),
    Described("hamgr_streaming_replicas", "Members that stream from here; only a primary has a sample."),
    Described("hamgr_replica_flush_lag_bytes", "WAL that a member which streams from here has not flushed.", "gauge",
              ("replica",)),
    Described("hamgr_roster_members", "Members that are entered: they may campaign, and promise when etcd is gone."),
    Described("hamgr_sync_electorate", "Standbys that may lead without loss; no sample without synchronous mode."),
    Described("hamgr_diverged", "1 if the WAL here is no ancestor of the leader's."),
    Described("hamgr_noloadbalance", "1 if tagged noloadbalance."),
)  # fmt: skip

OF_THE_GUARD = (
    Described("hamgr_guard_alive", "1 if the guard's heartbeat is fresh."),
    Described("hamgr_guard_armed", "1 if the guard holds a deadline and will kill the server at it."),
    Described("hamgr_guard_stand_in", "1 if the agent started this guard in place of a dead one."),
    Described("hamgr_guard_memory_locked", "1 if the guard's memory cannot be paged out."),
    Described("hamgr_guard_realtime", "1 if the guard runs before everything else on its host."),
    Described("hamgr_watchdog_state", "1 for the state that the watchdog device is in.", labels=("state",)),
    Described("hamgr_sentry", "1 if a session inside the server watches the deadline too; only on a primary."),
    Described("hamgr_agent_restarts_total", "Starts of the agent after the first one since the host booted.",
              "counter"),
    Described("hamgr_vital_ok", "1 if the vital check went well the last time.", labels=("vital",)),
)  # fmt: skip

OF_FAILOVERS = (
    Described("hamgr_failovers_total", "Changes of leader since the cluster was made.", "counter"),
    Described("hamgr_failover_stage_seconds", "Length of the stages of changes of leader to here.", "histogram",
              ("stage",)),
    Described("hamgr_failover_gap_seconds", "From fault to first write, where it is known when the fault was.",
              "histogram"),
    Described("hamgr_failover_stages_over_budget_total", "Stages that took longer than their budget.", "counter",
              ("stage",)),
    Described("hamgr_last_failover_stage_seconds", "Length of the stages of the last change of leader to here.",
              labels=("stage",)),
    Described("hamgr_failover_at_risk_bytes", "WAL known to be on the old leader only, in the last change to here."),
)  # fmt: skip

GROUPS: Mapping[str, tuple[Described, ...]] = {
    "The lead": OF_THE_LEAD,
    "Replication": OF_REPLICATION,
    "Guard and server": OF_THE_GUARD,
    "Changes of leader": OF_FAILOVERS,
    "Under Patroni's names": PATRONIS,
}
METRICS: Mapping[str, Described] = {each.name: each for group in GROUPS.values() for each in group}


def markdown() -> str:
    """The tables of the page, between its marks."""
    parts = [BEGIN]
    for title, group in GROUPS.items():
        parts += [f"### {title}", _table(group)]
    return "\n\n".join([*parts, END])


def _table(group: Iterable[Described]) -> str:
    rows = [(f"`{each.name}`", _kind(each), each.text) for each in group]
    return "\n".join(["| metric | type | meaning |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def _kind(each: Described) -> str:
    labels = ", ".join(f"`{label}`" for label in each.labels)
    return f"{each.kind}, by {labels}" if labels else each.kind


def renewed(page: str) -> str:
    """The page with the tables as they are now. Raises ValueError if its marks are gone."""
    head, rest = page.split(BEGIN, 1)
    return head + markdown() + rest.split(END, 1)[1]


if __name__ == "__main__":
    page = (Path(sys.argv[1]) if len(sys.argv) > 1 else Path()) / PAGE
    page.write_text(renewed(page.read_text()))
