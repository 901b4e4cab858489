"""Health answers and bodies, in Patroni's shapes, from one state: nothing here asks the server or etcd.

Paths, codes and keys are Patroni's, so that load balancers, exporters and scripts made for it keep working.
Different on purpose: /primary demands a server that was seen to accept writes under the present lease, where
Patroni is content with the leader key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hamgr.core.actions import TAKING_DOWN, Clone, Rewind
from hamgr.core.cluster import Tags
from hamgr.core.scene import Scene
from hamgr.core.server import Phase, Vital
from hamgr.core.state import State
from hamgr.core.units import Instant, Lsn

GOOD = 200
BAD = 503

ENDING = (*TAKING_DOWN, Clone, Rewind)
"""Actions that take the server away; while one is under way nobody should be routed to it."""

SIZE_UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
"""As PostgreSQL counts: 1 kB is 1024 bytes."""


class Check(Enum):
    """What a health check asks for."""

    PRIMARY = "primary"
    LEADER = "leader"
    STANDBY_LEADER = "standby-leader"
    REPLICA = "replica"
    READ_ONLY = "read-only"
    SYNC = "sync"
    READ_ONLY_SYNC = "read-only-sync"
    QUORUM = "quorum"
    READ_ONLY_QUORUM = "read-only-quorum"
    ASYNC = "async"
    HEALTH = "health"


CHECK_OF_PATH: Mapping[str, Check] = {
    "/": Check.PRIMARY,
    "/primary": Check.PRIMARY,
    "/master": Check.PRIMARY,
    "/read-write": Check.PRIMARY,
    "/leader": Check.LEADER,
    "/standby-leader": Check.STANDBY_LEADER,
    "/standby_leader": Check.STANDBY_LEADER,
    "/replica": Check.REPLICA,
    "/read-only": Check.READ_ONLY,
    "/sync": Check.SYNC,
    "/synchronous": Check.SYNC,
    "/read-only-sync": Check.READ_ONLY_SYNC,
    "/read-only-synchronous": Check.READ_ONLY_SYNC,
    "/quorum": Check.QUORUM,
    "/read-only-quorum": Check.READ_ONLY_QUORUM,
    "/async": Check.ASYNC,
    "/asynchronous": Check.ASYNC,
    "/health": Check.HEALTH,
}

IGNORE_FILTERS = frozenset({Check.PRIMARY, Check.LEADER, Check.STANDBY_LEADER})


@dataclass(frozen=True, slots=True)
class Query:
    """Filters of a health check. `lag_bytes` None: any lag will do; `tags` are wanted (key, value) pairs."""

    lag_bytes: int | None = None
    replication_state: str = ""
    by_received: bool = False
    """/readiness?mode=write: the lag is that of received WAL, not of replayed."""
    tags: tuple[tuple[str, str], ...] = ()


ANY = Query()


def parse_query(pairs: Iterable[tuple[str, str]]) -> Query:
    """The filters of a query string; the first of a repeated key counts, keys that are no filter do not.

    Raises ValueError for a lag that is no size: a filter that does not filter would be worse.
    """
    first: dict[str, str] = {}
    for key, value in pairs:
        first.setdefault(key, value)
    tags = tuple((key[4:], value) for key, value in first.items() if key.startswith("tag_"))
    lag = parse_size(first["lag"]) if "lag" in first else None
    return Query(lag, first.get("replication_state", ""), first.get("mode") == "write", tags)


def parse_size(text: str) -> int:
    """Bytes of '1048576', '100kB' or '1.5 GB'. Raises ValueError with the text if it is no size."""
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,2})\s*", text)
    unit = SIZE_UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"not a size: {text!r} (examples: 1048576, 100kB, 16MB)")
    return int(float(match.group(1)) * unit) if "." in match.group(1) else int(match.group(1)) * unit


def is_leading(state: State, now: Instant) -> bool:
    """This member holds the leader key of its term, and the deadline of its lease has not come."""
    return state.lease.term > 0 and Scene(state, now).may_be_primary


def is_writable_primary(state: State, now: Instant) -> bool:
    """A write sent now is accepted: leads, was verified in this very term, is not known to hang or to fail at it, and
    nothing is taking the server away.
    """
    return (
        is_leading(state, now)
        and state.verified_term == state.lease.term
        and state.server.is_primary
        and not state.server.is_read_only
        and state.illness(Vital.CONNECTION, Vital.COMMIT) is None
        and not is_ending(state)
    )


def is_ending(state: State) -> bool:
    """True while an action is under way that takes the server away."""
    return any(isinstance(task.action, ENDING) for task in state.under_way)


def code_of(check: Check, state: State, now: Instant, query: Query = ANY) -> int:
    """200 if what is asked for holds at `now`, else 503."""
    if check not in IGNORE_FILTERS and not _has_tags(state.me.tags, query):
        return BAD
    return GOOD if _holds(check, state, now, query) else BAD


def _holds(check: Check, state: State, now: Instant, query: Query) -> bool:
    match check:
        case Check.PRIMARY:
            return is_writable_primary(state, now)
        case Check.LEADER:
            return is_leading(state, now)
        case Check.STANDBY_LEADER:
            return False
        case Check.HEALTH:
            return state.server.phase is Phase.RUNNING and state.server.answered
        case Check.READ_ONLY | Check.READ_ONLY_SYNC | Check.READ_ONLY_QUORUM if is_writable_primary(state, now):
            return True
        case _:
            return _is_kind(check, state) and is_usable_replica(state, now, query)


def _is_kind(check: Check, state: State) -> bool:
    if check in (Check.REPLICA, Check.READ_ONLY):
        return True
    standby = sync_role(state, state.me.name)
    if check is Check.ASYNC:
        return state.cluster is not None and standby == ""
    return standby == ("sync_standby" if check in (Check.SYNC, Check.READ_ONLY_SYNC) else "quorum_standby")


def is_usable_replica(state: State, now: Instant, query: Query = ANY) -> bool:
    """A running replica of this cluster that takes reads and is within the filters."""
    server = state.server
    if not server.is_replica or state.me.tags.noloadbalance or is_ending(state) or Scene(state, now).is_foreign:
        return False
    if query.replication_state and query.replication_state != replication_state(state):
        return False
    return query.lag_bytes is None or (_knows_its_lag(state, now) and lag_bytes(state) <= query.lag_bytes)


def _knows_its_lag(state: State, now: Instant) -> bool:
    """It hears from its leader, or of it: cut off from both it would compare itself with what was long ago."""
    is_fresh = state.cluster is not None and now - state.cluster.seen_at <= state.policy.ttl_s
    return state.server.streaming or is_fresh


def why_not_ready(state: State, now: Instant, query: Query = ANY) -> str:
    """Why the server should not count as up (Kubernetes' readiness); empty when it should."""
    if is_leading(state, now):
        return ""
    if state.server.phase is not Phase.RUNNING or not state.server.answered:
        return "PostgreSQL is not running"
    if Scene(state, now).is_foreign:
        return "PostgreSQL's data is of another cluster"
    if replication_state(state) != "streaming":
        return "PostgreSQL replication state is not streaming"
    limit = state.policy.maximum_lag_on_failover_bytes if query.lag_bytes is None else query.lag_bytes
    lag = lag_bytes(state, by_received=query.by_received)
    if lag > limit:
        mode = "write" if query.by_received else "apply"
        return f"Replication {mode} lag {lag} exceeds maximum allowable {limit}"
    return ""


def is_alive(state: State, loop_ran_at: Instant, now: Instant) -> bool:
    """The decision loop ran within the ttl (twice that where no lease is at stake), or the cluster is paused."""
    patience_s = state.policy.ttl_s * (1 if state.server.is_primary else 2)
    return state.policy.pause or now - loop_ran_at <= patience_s


def lag_bytes(state: State, *, by_received: bool = False) -> int:
    """How far this replica is behind the greatest position known of its leader; 0 on a primary."""
    server = state.server
    if server.is_primary:
        return 0
    reached = server.received_lsn if by_received else server.replayed_lsn
    return max(0, max(leader_position(state), server.received_lsn) - reached)


def leader_position(state: State) -> Lsn:
    """The greatest end of the leader's WAL that is known here: its own if it is this member, else as published."""
    published = state.cluster.status.optime if state.cluster else Lsn(0)
    return max(published, state.server.written_lsn) if state.server.is_primary else published


def replication_state(state: State) -> str:
    """'streaming' on a replica that streams; empty otherwise."""
    return "streaming" if state.server.is_replica and state.server.streaming else ""


def sync_role(state: State, member: str) -> str:
    """'sync_standby' or 'quorum_standby' for a member of the synchronous set, as the mode is; else empty."""
    mode = state.policy.synchronous_mode
    sync = state.cluster.sync if state.cluster else None
    if mode == "off" or sync is None or member not in sync.members:
        return ""
    return "quorum_standby" if mode == "quorum" else "sync_standby"


def tags_as_json(tags: Tags) -> dict[str, Any]:
    """Tags as an operator wrote them; those left at their default do not show, as in Patroni."""
    shown: dict[str, Any] = {}
    for name in ("nofailover", "noloadbalance", "clonefrom", "nosync"):
        if getattr(tags, name):
            shown[name] = True
    for name in ("failover_priority", "sync_priority"):
        if getattr(tags, name) != 1:
            shown[name] = getattr(tags, name)
    return shown | dict(tags.extra)


def _has_tags(tags: Tags, query: Query) -> bool:
    if not query.tags:
        return True
    shown = tags_as_json(tags)
    return all(key in shown and _as_text(shown[key]) == value for key, value in query.tags)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower()
