"""Members as `list` and `topology` show them: etcd's view, made fresh by what each member itself says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hamgr.cli.output import Column, Table, human_bytes
from hamgr.core.cluster import ClusterView, Member
from hamgr.core.health import tags_as_json
from hamgr.core.precheck import known_position
from hamgr.core.units import Lsn, WallTime
from hamgr.settings import parse_dynamic

UNKNOWN = "unknown"
Status = Mapping[str, Any]
"""Body of a member's GET /patroni."""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member. Positions and lags are None where nobody knows them; lags in bytes."""

    name: str
    host: str
    role: str
    state: str
    timeline: int
    received: Lsn | None = None
    receive_lag: int | None = None
    replayed: Lsn | None = None
    replay_lag: int | None = None
    pending_restart: bool = False
    pending_restart_reason: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def is_leader(self) -> bool:
        return self.role == "leader"


def member_rows(view: ClusterView, statuses: Mapping[str, Status]) -> tuple[MemberRow, ...]:
    """The members of a view, by name; `statuses` holds those that answered, and they win over etcd."""
    end = _leader_position(view, statuses)
    return tuple(
        _row(view, member, statuses.get(member.name), end)
        for member in sorted(view.members, key=lambda member: member.name)
    )


def role_of(view: ClusterView, name: str) -> str:
    """`leader`, `sync_standby`, `quorum_standby` or `replica`: by the keys, not by what the server is."""
    if view.is_led_by(name):
        return "leader"
    mode = _synchronous_mode(view)
    if mode == "off" or view.sync is None or name not in view.sync.members:
        return "replica"
    return "quorum_standby" if mode == "quorum" else "sync_standby"


def _synchronous_mode(view: ClusterView) -> str:
    values = view.config.values if view.config is not None else None
    return parse_dynamic(values or {})[0].synchronous_mode


def member_table(view: ClusterView, rows: Sequence[MemberRow], scope: str, *, extended: bool = False) -> Table:
    """The table of `list`. People see optional columns only where something stands in them, or `extended`."""
    optional = (
        Column("Pending restart", for_programs=not (extended or any(row.pending_restart for row in rows))),
        Column("Pending restart reason", for_programs=not extended),
        Column("Tags", for_programs=not (extended or any(row.tags for row in rows))),
        Column("Note", for_programs=not (extended or any(row.note for row in rows))),
    )
    system = view.system_identifier or ("initializing" if view.initialize_revision else "uninitialized")
    return Table(
        columns=(*_COLUMNS, *optional),
        rows=[_values(scope, row) for row in rows],
        title=f"Cluster: {scope} ({system})",
        footer=_footer(view),
    )


def topology_table(view: ClusterView, rows: Sequence[MemberRow], scope: str) -> Table:
    """The same table as a tree: the leader first, those that follow it below."""
    leaders = [row for row in rows if row.is_leader]
    ordered = [*leaders, *(row for row in rows if not row.is_leader)]
    table = member_table(view, ordered, scope)
    indent = "+ " if leaders else ""
    shown = [
        {**values, "Member": row.name if row.is_leader else f"{indent}{row.name}"}
        for row, values in zip(ordered, table.rows, strict=True)
    ]
    return Table(table.columns, shown, table.title, table.footer)


def _human_lag(lag: Any) -> str:
    return human_bytes(lag) if isinstance(lag, int) else str(lag)


_COLUMNS = (
    Column("Cluster", for_programs=True),
    Column("Member"),
    Column("Host"),
    Column("Role"),
    Column("State"),
    Column("TL", right=True),
    Column("Receive LSN", right=True),
    Column("Receive Lag", "Lag", right=True, show=_human_lag),
    Column("Replay LSN", right=True),
    Column("Replay Lag", "Lag", right=True, show=_human_lag),
)


def _values(scope: str, row: MemberRow) -> dict[str, Any]:
    def position(lsn: Lsn | None) -> str | None:
        return None if row.is_leader else UNKNOWN if lsn is None else str(lsn)

    def lag(count: int | None) -> int | str | None:
        return None if row.is_leader else UNKNOWN if count is None else count

    return {
        "Cluster": scope,
        "Member": row.name,
        "Host": row.host,
        "Role": row.role.replace("_", " ").title(),
        "State": row.state,
        "TL": row.timeline or None,
        "Receive LSN": position(row.received),
        "Receive Lag": lag(row.receive_lag),
        "Replay LSN": position(row.replayed),
        "Replay Lag": lag(row.replay_lag),
        "Pending restart": "*" if row.pending_restart else None,
        "Pending restart reason": dict(row.pending_restart_reason) or None,
        "Tags": dict(row.tags) or None,
        "Note": row.note or None,
    }


def _footer(view: ClusterView) -> tuple[str, ...]:
    lines = []
    if view.leader is None:
        lines.append(" No leader")
    elif view.member(view.leader.name) is None:
        lines.append(f" {view.leader.name} holds the leader key, its member key is gone")
    if view.config and view.config.values and view.config.values.get("pause"):
        lines.append(" Maintenance mode: on")
    if view.request and view.request.scheduled_at is not None:
        to = f" to {view.request.candidate}" if view.request.candidate else ""
        at = _in_utc(view.request.scheduled_at)
        lines.append(f" Switchover scheduled at {at}, from {view.request.leader}{to}")
    lines += [f" Key not understood: {problem}" for problem in view.problems]
    return tuple(lines)


def _in_utc(at: WallTime) -> str:
    """What stands in the key may be any time with its zone, and there is no year 10000 nor 0."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return "a time that is none in UTC"


def _row(view: ClusterView, member: Member, status: Status | None, end: Lsn | None) -> MemberRow:
    role = role_of(view, member.name)
    received, replayed = _positions(view, member, status)
    told = status or {}
    state = _state(member, told, role)
    return MemberRow(
        name=member.name,
        host=member.conn_url.partition("://")[2].partition("/")[0].rpartition("@")[2],
        role=role,
        state=state,
        timeline=int(told.get("timeline") or member.timeline),
        received=received,
        receive_lag=_lag(end, received),
        replayed=replayed,
        replay_lag=_lag(end, replayed),
        pending_restart=bool(told.get("pending_restart", member.pending_restart)),
        pending_restart_reason=told.get("pending_restart_reason") or {},
        tags=tags_as_json(member.tags),
        note=_note(member, status, role, state),
    )


def _state(member: Member, told: Status, role: str) -> str:
    """Patroni's word, where a running replica is what its replication is: `streaming`."""
    state = str(told.get("state") or member.state)
    replication = str(told.get("replication_state") or ("" if told else member.replication_state))
    return replication if state == "running" and role != "leader" and replication else state


def _note(member: Member, status: Status | None, role: str, state: str) -> str:
    """Why the member is not well, empty when it is: what it says of a good state is not worth a column."""
    if status is None:
        return _note_of_silent(member)
    is_well = state == "running" and status.get("role") == "primary" if role == "leader" else state == "streaming"
    return "" if is_well else str(status.get("note") or member.note)


def _note_of_silent(member: Member) -> str:
    silent = "REST does not answer" if member.api_url else "announces no REST address"
    return f"{member.note}; {silent}" if member.note else silent


def _positions(view: ClusterView, member: Member, status: Status | None) -> tuple[Lsn | None, Lsn | None]:
    """Received and replayed; from etcd, where only one position is known, it stands for what was received."""
    xlog = (status or {}).get("xlog") or {}
    received, replayed = xlog.get("received_location"), xlog.get("replayed_location")
    if received is None and replayed is None:
        return known_position(view, member), None
    return (
        None if received is None else Lsn(received),
        None if replayed is None else Lsn(replayed),
    )


def _leader_position(view: ClusterView, statuses: Mapping[str, Status]) -> Lsn | None:
    if view.leader is None:
        return view.status.optime or None
    xlog = statuses.get(view.leader.name, {}).get("xlog") or {}
    return Lsn(max(int(xlog.get("location") or 0), view.status.optime)) or None


def _lag(end: Lsn | None, position: Lsn | None) -> int | None:
    return None if end is None or position is None else max(0, end - position)
