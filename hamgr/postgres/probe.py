"""One round trip that tells all that decisions want to know of a running server. Runs once a second: cheap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from hamgr.core.server import Walsender
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres.sql import Sql
from hamgr.postgres.versions import VERSIONS, Version

PROBE = """
SELECT r.rec,
       current_setting('server_version_num')::int,
       (SELECT system_identifier::text FROM pg_control_system()),
       current_setting('transaction_read_only') = 'on',
       CASE WHEN r.rec THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
       CASE WHEN r.rec THEN (SELECT min_recovery_end_timeline FROM pg_control_recovery()) ELSE 0 END,
       CASE WHEN r.rec THEN NULL ELSE pg_current_wal_lsn()::text END,
       CASE WHEN r.rec THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text END,
       CASE WHEN r.rec THEN pg_last_wal_replay_lsn()::text END,
       CASE WHEN r.rec THEN pg_last_xact_replay_timestamp()::text END,
       CASE WHEN r.rec THEN {replay_paused} ELSE false END,
       pg_postmaster_start_time()::text,
       pg_conf_load_time()::text,
       current_setting('primary_conninfo'),
       (SELECT json_build_array(w.status, w.received_tli,
                   extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time))
          FROM pg_stat_get_wal_receiver() w WHERE w.pid IS NOT NULL),
       (SELECT json_agg(json_build_array(s.application_name, coalesce(host(s.client_addr), ''), s.state,
                   s.sync_state, s.sync_priority, s.usename, coalesce(s.flush_lsn, '0/0')::text)
                   ORDER BY s.application_name)
          FROM pg_stat_replication s),
       (SELECT json_object_agg(slot_name, coalesce(restart_lsn, '0/0')::text)
          FROM pg_get_replication_slots() WHERE slot_type = 'physical'),
       current_setting('synchronous_standby_names'),
       EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'hamgr sentry'),
       current_setting('wal_level') = 'logical',
       current_setting('synchronized_standby_slots', true),
       {failover_slots}
  FROM (SELECT pg_is_in_recovery() AS rec) r
"""

FAILOVER_SLOTS = """
       (SELECT json_agg(json_build_array(slot_name, coalesce(confirmed_flush_lsn, '0/0')::text, synced, active))
          FROM pg_get_replication_slots()
         WHERE slot_type = 'logical' AND failover AND NOT temporary AND invalidation_reason IS NULL)
"""
"""A copy is temporary until it can be used. Source: src/backend/replication/logical/slotsync.c."""

PENDING_RESTART = """
SELECT s.name, s.setting, f.setting
  FROM pg_settings s
  LEFT JOIN LATERAL (SELECT setting FROM pg_file_settings WHERE lower(name) = lower(s.name)
                      ORDER BY seqno DESC LIMIT 1) f ON true
 WHERE s.pending_restart
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server told. On a primary `received_lsn` and `replayed_lsn` are 0, on a replica `written_lsn`."""

    in_recovery: bool
    server_version: int
    system_identifier: str
    is_read_only: bool
    timeline: Timeline
    """On a replica: of the WAL receiver if it has one, else of the control file, which may be behind."""
    timeline_is_fresh: bool
    written_lsn: Lsn
    received_lsn: Lsn
    replayed_lsn: Lsn
    replayed_at: str
    replay_paused: bool
    started_at: str
    loaded_at: str
    """When the configuration was last read: what awaits a restart can change only then."""
    upstream: str
    streaming: bool
    last_message_age_s: float | None
    walsenders: tuple[Walsender, ...] = ()
    slots: Mapping[str, Lsn] = field(default_factory=dict)
    sync_names: str = ""
    has_sentry: bool = False
    makes_failover_slots: bool = False
    failover_slots: Mapping[str, Lsn] = field(default_factory=dict)
    former_slots: tuple[str, ...] = ()
    awaited_slots: tuple[str, ...] = ()


async def probe_sql(sql: Sql, major: int, *, timeout_s: float = 2.0) -> Answer:
    """The server's answer. Raises ServerUnavailable if there is none within `timeout_s`."""
    known = VERSIONS.get(major) or VERSIONS[max(VERSIONS)]
    # No percent sign may be read as a placeholder: there are no parameters.
    slots = FAILOVER_SLOTS if known.syncs_slots else "NULL::json"
    statement = PROBE.format(replay_paused=known.replay_paused_sql, failover_slots=slots)
    rows = await sql.query(statement, timeout_s=timeout_s)
    return parse_answer(rows[0], known)


async def pending_restart(sql: Sql, *, timeout_s: float = 2.0) -> Mapping[str, Mapping[str, str]]:
    """Settings whose new value awaits a restart: name -> {old_value, new_value}, as Patroni shows them."""
    rows = await sql.query(PENDING_RESTART, timeout_s=timeout_s)
    return {name: {"old_value": str(old), "new_value": str(new if new is not None else "")} for name, old, new in rows}


def parse_answer(row: tuple[Any, ...], known: Version) -> Answer:
    """One row of PROBE."""
    receiver_status, receiver_timeline, age_s = row[14] or ("", 0, None)
    in_recovery = bool(row[0])
    return Answer(
        in_recovery=in_recovery,
        server_version=row[1],
        system_identifier=row[2],
        is_read_only=row[3],
        timeline=Timeline(max(row[4] or 0, row[5] or 0, receiver_timeline or 0)),
        timeline_is_fresh=not in_recovery or bool(receiver_timeline),
        written_lsn=_lsn(row[6]),
        received_lsn=_lsn(row[7]),
        replayed_lsn=_lsn(row[8]),
        replayed_at=row[9] or "",
        replay_paused=bool(row[10]),
        started_at=row[11],
        loaded_at=row[12],
        upstream=host_and_port(row[13]) if in_recovery else "",
        streaming=receiver_status == "streaming",
        last_message_age_s=None if age_s is None else float(age_s),
        walsenders=tuple(_walsender(sender) for sender in row[15] or ()),
        slots={name: Lsn.parse(text) for name, text in (row[16] or {}).items()},
        sync_names=row[17],
        has_sentry=row[18],
        makes_failover_slots=known.syncs_slots and row[19],
        # On a primary it does not matter where a slot came from.
        failover_slots={name: Lsn.parse(lsn) for name, lsn, synced, _ in row[21] or () if synced or not in_recovery},
        former_slots=tuple(
            name for name, _, synced, active in row[21] or () if not (synced or active or not in_recovery)
        ),
        awaited_slots=tuple(name.strip(' "') for name in (row[20] or "").split(",") if name.strip()),
    )


def _walsender(sender: list[Any]) -> Walsender:
    name, address, state, sync_state, priority, user, flushed = sender
    return Walsender(
        application_name=name or "",
        client_addr=address,
        state=state or "",
        sync_state=sync_state or "",
        sync_priority=priority or 0,
        usename=user or "",
        flush_lsn=Lsn.parse(flushed),
    )


def _lsn(text: str | None) -> Lsn:
    return Lsn.parse(text) if text else Lsn(0)


def host_and_port(conninfo: str) -> str:
    """'host:port' of a connection string, empty if it names no host (or cannot be read)."""
    try:
        fields = conninfo_to_dict(conninfo)
    except ProgrammingError:
        return ""
    host = fields.get("host") or fields.get("hostaddr")
    return f"{host}:{fields.get('port') or 5432}" if host else ""
