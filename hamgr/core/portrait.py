"""What a member says of itself and of its cluster: the bodies of GET /patroni and GET /cluster, in Patroni's keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hamgr.core.actions import Clone, InitDb, Reinitialize, RestartServer, StopServer
from hamgr.core.cluster import ClusterView, Member
from hamgr.core.health import leader_position, replication_state, sync_role, tags_as_json
from hamgr.core.precheck import known_position
from hamgr.core.reasons import Code, Reason
from hamgr.core.scene import Scene, upstream_of
from hamgr.core.sentences import sentence
from hamgr.core.server import DataDir, Phase, ServerView
from hamgr.core.standing import GuardStanding
from hamgr.core.state import State
from hamgr.core.units import Instant, Lsn, WallTime

UNKNOWN = "unknown"
PATRONI_VERSION = "4.1.5"
"""Whose interface this is: programs choose by it how they read states and roles (docs/adr/0016)."""

ORDINARY = frozenset({Code.LEADING, Code.FOLLOWING})

STATE_OF_ACTION = (
    (InitDb, "initializing new cluster"),
    (Clone, "creating replica"),
    (Reinitialize, "creating replica"),
    (RestartServer, "restarting"),
    (StopServer, "stopping"),
)
"""What is being done with the server counts for more than what its process does meanwhile."""


def server_state(state: State) -> str:
    """The server's state in Patroni's words; 'unknown' while it runs without answering, or was never probed."""
    for kind, word in STATE_OF_ACTION:
        if state.running(kind):
            return word
    if state.server.phase is Phase.RUNNING and not state.server.answered:
        return UNKNOWN
    return state.server.phase.value


def server_role(server: ServerView) -> str:
    """'primary' only for a live server out of recovery; 'uninitialized' where there is no data directory yet."""
    if server.is_alive and server.in_recovery is False:
        return "primary"
    return "uninitialized" if server.data_dir in (DataDir.EMPTY, DataDir.UNFINISHED) else "replica"


def status_body(state: State, now: Instant, wall: WallTime, scope: str, note: str = "") -> dict[str, Any]:
    """GET /patroni. `wall` is the wall clock at `now`; `note` is the reason for what is being done, in words.

    Absent where Patroni leaves it absent: a key whose value is not known, or a flag that is off.
    """
    server, cluster = state.server, state.cluster
    body: dict[str, Any] = {"state": server_state(state), "role": server_role(server)}
    if server.phase is Phase.RUNNING and server.answered:
        body |= _answered(state)
    if state.policy.pause:
        body["pause"] = True
    if cluster is None or cluster.leader is None:
        body["cluster_unlocked"] = True
    if Scene(state, now).leads_by_peers:
        body["failsafe_mode_is_active"] = True
    body["dcs_last_seen"] = int(wall - (now - cluster.seen_at)) if cluster else 0
    if tags := tags_as_json(state.me.tags):
        body["tags"] = tags
    if identifier := server.system_identifier or (cluster.system_identifier if cluster else ""):
        body["database_system_identifier"] = identifier
    body |= _pending_restart(server)
    body["patroni"] = {"version": PATRONI_VERSION, "scope": scope, "name": state.me.name}
    body["hamgr"] = {"version": state.me.version}
    body["term"] = cluster.term if cluster else state.lease.term
    body["note"] = "; ".join(part for part in (note, state.progress) if part)
    return body


def status_line(state: State, reason: Reason) -> str:
    """What this member is, in one line for a service manager; the reason only where it is not an ordinary one."""
    server, cluster = state.server, state.cluster
    leader = cluster.leader.name if cluster is not None and cluster.leader is not None else ""
    term = cluster.term if cluster is not None else state.lease.term
    if leader == state.me.name:
        led = f"leader in term {term}"
    else:
        led = f"leader is {leader}, term {term}" if leader else f"no leader, term {term}"
    doing = replication_state(state) if server.is_replica else ""
    line = f"{state.me.name}: {server_role(server)}, {doing or server_state(state)}; {led}"
    return line if reason.code in ORDINARY else f"{line}; {sentence(reason)}"


def guard_body(state: State, standing: GuardStanding) -> dict[str, Any]:
    """What GET /patroni says of the guard besides: whether it lives as decisions take it, the rest as it says itself.

    Patroni's `watchdog_failed` is for a device that was to be had and is not.
    """
    shown: dict[str, Any] = {"watchdog_failed": True} if standing.watchdog == "failed" else {}
    return shown | {
        "guard": {
            "alive": state.guard_alive,
            "stand_in": standing.is_stand_in,
            "armed": standing.is_armed,
            "memory_locked": standing.memory_locked,
            "realtime": standing.realtime,
            "watchdog": standing.watchdog,
            "agent_restarts": standing.agent_restarts,
        }
    }


def _answered(state: State) -> dict[str, Any]:
    server = state.server
    shown: dict[str, Any] = {
        "postmaster_start_time": server.started_at,
        "server_version": server.server_version,
        "xlog": _xlog(server),
    }
    if standby := sync_role(state, state.me.name) if server.is_replica else "":
        shown[standby] = True
    shown["timeline"] = server.timeline
    if streaming := replication_state(state):
        shown["replication_state"] = streaming
    if server.walsenders:
        shown["replication"] = [
            {
                "usename": sender.usename,
                "application_name": sender.application_name,
                "client_addr": sender.client_addr,
                "state": sender.state,
                "sync_state": sender.sync_state,
                "sync_priority": sender.sync_priority,
            }
            for sender in server.walsenders
        ]
    return shown


def _xlog(server: ServerView) -> dict[str, Any]:
    if server.is_primary:
        return {"location": int(server.written_lsn)}
    return {
        "received_location": int(server.received_lsn),
        "replayed_location": int(server.replayed_lsn),
        "replayed_timestamp": server.replayed_at or None,
        "paused": server.replay_paused,
    }


def _pending_restart(server: ServerView) -> dict[str, Any]:
    if not server.pending_restart:
        return {}
    shown: dict[str, Any] = {"pending_restart": True}
    if server.pending_restart_reason:
        shown["pending_restart_reason"] = {key: dict(why) for key, why in server.pending_restart_reason.items()}
    return shown


def cluster_body(state: State, now: Instant, scope: str) -> dict[str, Any]:
    """GET /cluster: the members by name, as etcd shows them; this member's own server as last probed."""
    cluster = state.cluster or ClusterView(revision=0, seen_at=now)
    members = sorted(cluster.members, key=lambda member: member.name)
    body: dict[str, Any] = {"members": [_member(state, cluster, member) for member in members]}
    if state.policy.pause:
        body["pause"] = True
    request = cluster.request
    if request is not None and request.scheduled_at is not None:
        at = datetime.fromtimestamp(request.scheduled_at, UTC).isoformat()
        ends = {"from": request.leader, "to": request.candidate}
        body["scheduled_switchover"] = {"at": at} | {key: name for key, name in ends.items() if name}
    return body | {"scope": scope, "term": cluster.term}


def _member(state: State, cluster: ClusterView, member: Member) -> dict[str, Any]:
    is_me, leads = member.name == state.me.name, cluster.is_led_by(member.name)
    role = "leader" if leads else sync_role(state, member.name) or "replica"
    word = server_state(state) if is_me else member.state
    streaming = replication_state(state) if is_me else member.replication_state
    if not leads and streaming and word == "running":
        word = streaming
    shown: dict[str, Any] = {"name": member.name, "role": role, "state": word, "api_url": member.api_url}
    address = upstream_of(member)
    if address.host:
        shown |= {"host": address.host, "port": address.port}
    if timeline := state.server.timeline if is_me else member.timeline:
        shown["timeline"] = timeline
    if member.pending_restart:
        shown["pending_restart"] = True
    if tags := tags_as_json(member.tags):
        shown["tags"] = tags
    if not leads:
        shown |= _positions(state, cluster, member)
    if member.note:
        shown["note"] = member.note
    return shown


def _positions(state: State, cluster: ClusterView, member: Member) -> dict[str, Any]:
    if member.name == state.me.name and state.server.is_replica:
        received, replayed = state.server.received_lsn, state.server.replayed_lsn
    else:
        received, replayed = known_position(cluster, member) or Lsn(0), Lsn(0)
    end = leader_position(state)
    shown: dict[str, Any] = {}
    for prefix, lsn in (("receive_", received), ("replay_", replayed), ("", received)):
        shown[f"{prefix}lsn"] = str(lsn) if lsn else UNKNOWN
        shown[f"{prefix}lag"] = max(0, end - lsn) if lsn else UNKNOWN
    return shown
