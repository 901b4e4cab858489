"""Keys of a scope to one ClusterView. Garbage in one key never hides the others."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from hamgr.core.cluster import (
    Ballot,
    ClusterView,
    Config,
    HistoryLine,
    LeaderKey,
    Member,
    Offer,
    Request,
    Status,
    SyncState,
    Tags,
)
from hamgr.core.units import Instant, Lsn, Term, Timeline, WallTime
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Entry

T = TypeVar("T", int, str, float, bool)


def decode_view(keys: ScopeKeys, entries: Iterable[Entry], revision: int, seen_at: Instant) -> ClusterView:
    """The view that these keys make. Keys that cannot be read are in `problems` and count as absent, but:

    a `config` that cannot be read is a Config without values; a `failover` that cannot be read is a Request
    that asks for nothing, so that its revision can be compared and it can be cleared; a `sync` that cannot be read
    is an electorate that elects nobody, which a leader can write over.
    """
    fields: dict[str, Any] = {}
    members: list[Member] = []
    ballots: list[Ballot] = []
    problems: list[str] = []
    for entry in entries:
        decoded, problem = _decoded(keys.relative(entry.key), entry)
        if problem:
            problems.append(f"{entry.key}: {problem}")
        match decoded:
            case Member():
                members.append(decoded)
            case Ballot():
                ballots.append(decoded)
            case dict():
                fields.update(decoded)
    return ClusterView(
        revision=revision,
        seen_at=seen_at,
        members=tuple(sorted(members, key=lambda member: member.name)),
        ballots=tuple(sorted(ballots, key=lambda ballot: ballot.name)),
        problems=tuple(problems),
        **fields,
    )


# Most keys of a view are the same as in the one before; decoding them again would cost an idle agent half its CPU.
@lru_cache(maxsize=512)
def _decoded(name: str, entry: Entry) -> tuple[Member | Ballot | dict[str, Any] | None, str]:
    """What one key contributes, and what is wrong with it ('': nothing)."""
    head, slash, tail = name.partition("/")
    decode = _DECODERS.get(head + slash)
    if decode is None or (slash and not tail):
        return None, ""
    try:
        if entry.value is None:
            raise ValueError("not UTF-8 text")
        return decode(tail, entry.value, entry), ""
    except (ValueError, OverflowError, RecursionError) as error:
        return _UNREADABLE.get(name, _nothing)(entry), str(error) or type(error).__name__


def _nothing(_: Entry) -> None:
    return None


NO_MEMBER = "?"
"""Nobody's name: an electorate that cannot be read elects nobody, and its next leader writes it anew."""

_UNREADABLE: dict[str, Callable[[Entry], dict[str, Any] | None]] = {
    "config": lambda entry: {"config": Config(None, entry.mod_revision)},
    "failover": lambda entry: {"request": Request(mod_revision=entry.mod_revision)},
    "failsafe": lambda entry: {"roster": {}, "roster_revision": entry.mod_revision},
    "sync": lambda entry: {"sync": SyncState(NO_MEMBER, mod_revision=entry.mod_revision)},
    "history": lambda entry: {"history": (), "history_revision": entry.mod_revision},
}


def _initialize(_: str, text: str, entry: Entry) -> dict[str, Any]:
    # Empty while somebody makes the cluster. Garbage taken for an identifier would make every member's data foreign.
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError("not a system identifier")
    return {"system_identifier": text, "initialize_revision": entry.mod_revision}


def _config(_: str, text: str, entry: Entry) -> dict[str, Any]:
    return {"config": Config(_json_object(text), entry.mod_revision)}


def _leader(_: str, text: str, entry: Entry) -> dict[str, Any]:
    if not text:
        raise ValueError("empty")
    return {"leader": LeaderKey(text, entry.lease_id, entry.mod_revision)}


def _term(_: str, text: str, entry: Entry) -> dict[str, Any]:
    # Unreadable: the revision stays 0, so that every transaction that would count on is refused. Starting
    # again from 0 would give a number to a second leadership.
    term = int(text)
    if term < 0:
        raise ValueError(f"negative: {term}")
    return {"term": Term(term), "term_revision": entry.mod_revision}


def _released(_: str, text: str, entry: Entry) -> dict[str, Any]:
    # Unreadable counts as absent, which is 0: nobody then takes a leadership for given up that was not.
    term = int(text)
    if term < 0:
        raise ValueError(f"negative: {term}")
    return {"released_term": Term(term)}


def _status(_: str, text: str, entry: Entry) -> dict[str, Any]:
    value = _json_object(text)
    slots, lost = _positions(value, "slots"), _positions(value, "lost_slots")
    timeline, timeline_term = Timeline(_number(value, "timeline")), Term(_number(value, "timeline_term"))
    return {"status": Status(_lsn(value, "optime"), timeline, slots, entry.mod_revision, lost, timeline_term)}


def _positions(value: Mapping[str, Any], name: str) -> dict[str, Lsn]:
    return {slot: Lsn(_typed(lsn, int, slot)) for slot, lsn in _mapping(value, name).items() if lsn is not None}


def _request(_: str, text: str, entry: Entry) -> dict[str, Any]:
    value = _json_object(text)
    offer = value.get("offer")
    request = Request(
        leader=_text(value, "leader"),
        # Patroni before 1.6 wrote `member`.
        candidate=_text(value, "candidate") or _text(value, "member"),
        scheduled_at=_wall_time(_text(value, "scheduled_at")),
        allow_data_loss=_get(value, "allow_data_loss", bool, False),
        offer=None if offer is None else _offer(_typed_object(offer, "offer")),
        mod_revision=entry.mod_revision,
    )
    return {"request": request}


def _offer(value: Mapping[str, Any]) -> Offer:
    elapsed_s = {name: _seconds(seconds, name) for name, seconds in _mapping(value, "elapsed_s").items()}
    return Offer(
        holder=_text(value, "holder"),
        term=Term(_number(value, "term")),
        timeline=Timeline(_number(value, "timeline")),
        lsn=_lsn(value, "lsn"),
        cause=_text(value, "cause"),
        elapsed_s=elapsed_s,
        notes=_texts(value, "notes"),
        timeline_term=Term(_number(value, "timeline_term")),
    )


def _sync(_: str, text: str, entry: Entry) -> dict[str, Any]:
    value = _json_object(text)
    members = tuple(name.strip() for name in _text(value, "sync_standby").split(",") if name.strip())
    return {"sync": SyncState(_text(value, "leader"), members, _number(value, "quorum"), entry.mod_revision)}


def _history(_: str, text: str, entry: Entry) -> dict[str, Any]:
    rows = _json(text)
    if not isinstance(rows, list):
        raise ValueError("not a JSON list")
    return {"history": tuple(_history_line(row) for row in rows), "history_revision": entry.mod_revision}


def _history_line(row: Any) -> HistoryLine:
    if not isinstance(row, list) or len(row) < 2:
        raise ValueError(f"not a line of history: {row!r}"[:80])
    reason, timestamp, new_leader = ([*row[2:5], "", "", ""])[:3]
    return HistoryLine(
        Timeline(_typed(row[0], int, "timeline")),
        Lsn(_typed(row[1], int, "lsn")),
        _typed(reason or "", str, "reason"),
        _typed(timestamp or "", str, "timestamp"),
        _typed(new_leader or "", str, "new_leader"),
    )


def _roster(_: str, text: str, entry: Entry) -> dict[str, Any]:
    roster = {name: _typed(url or "", str, name) for name, url in _json_object(text).items()}
    return {"roster": roster, "roster_revision": entry.mod_revision}


def _member(name: str, text: str, entry: Entry) -> Member:
    value = _json_object(text)
    role = _text(value, "role")
    return Member(
        name=name,
        conn_url=_text(value, "conn_url"),
        api_url=_text(value, "api_url"),
        state=_text(value, "state") or "unknown",
        # Patroni before 4.0 wrote `master`.
        role="primary" if role == "master" else role or "replica",
        version=_text(value, "version"),
        server_version=_number(value, "server_version"),
        timeline=Timeline(_number(value, "timeline")),
        timeline_term=Term(_number(value, "timeline_term")),
        xlog_location=_lsn(value, "xlog_location"),
        replication_state=_text(value, "replication_state"),
        tags=_tags(_mapping(value, "tags")),
        pending_restart=_get(value, "pending_restart", bool, False),
        ready_for=_number(value, "ready_for"),
        note=_text(value, "note"),
        ill=_text(value, "ill"),
        lease_id=entry.lease_id,
        mod_revision=entry.mod_revision,
    )


_TAG_NAMES = frozenset(("nofailover", "noloadbalance", "clonefrom", "nosync", "failover_priority", "sync_priority"))


def _tags(value: Mapping[str, Any]) -> Tags:
    return Tags(
        nofailover=_get(value, "nofailover", bool, False),
        noloadbalance=_get(value, "noloadbalance", bool, False),
        clonefrom=_get(value, "clonefrom", bool, False),
        nosync=_get(value, "nosync", bool, False),
        failover_priority=_get(value, "failover_priority", int, 1),
        sync_priority=_get(value, "sync_priority", int, 1),
        extra={name: tag for name, tag in value.items() if name not in _TAG_NAMES},
    )


def _ballot(name: str, text: str, entry: Entry) -> Ballot:
    value = _json_object(text)
    return Ballot(
        name=name,
        term=Term(_number(value, "term")),
        timeline=Timeline(_number(value, "timeline")),
        lsn=_lsn(value, "lsn"),
        priority=_get(value, "priority", int, 1),
        timeline_term=Term(_number(value, "timeline_term")),
        mod_revision=entry.mod_revision,
    )


_DECODERS: dict[str, Callable[[str, str, Entry], Member | Ballot | dict[str, Any]]] = {
    "initialize": _initialize,
    "config": _config,
    "leader": _leader,
    "term": _term,
    "released": _released,
    "status": _status,
    "failover": _request,
    "sync": _sync,
    "history": _history,
    "failsafe": _roster,
    "members/": _member,
    "ballots/": _ballot,
}


# -- fields: absent and null mean the default, another type is garbage ---------------------------------------


def decode_json_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    return _json_object(text)


def _reject(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=_reject)


def _json_object(text: str) -> dict[str, Any]:
    value = _json(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _typed(value: Any, kind: type[T], name: str) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is not of type {kind.__name__}")
    if isinstance(value, str):
        value.encode()  # half a surrogate pair is a ValueError here and trouble anywhere else
    return value


def _get(value: Mapping[str, Any], name: str, kind: type[T], default: T) -> T:
    found = value.get(name)
    return default if found is None else _typed(found, kind, name)


def _text(value: Mapping[str, Any], name: str) -> str:
    return _get(value, name, str, "")


def _texts(value: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = value.get(name) or []
    if not isinstance(found, list):
        raise ValueError(f"{name} is not a list")
    return tuple(_typed(each, str, name) for each in found)


def _number(value: Mapping[str, Any], name: str) -> int:
    number = _get(value, name, int, 0)
    if number < 0:
        raise ValueError(f"{name} is negative")
    return number


def _lsn(value: Mapping[str, Any], name: str) -> Lsn:
    return Lsn(_number(value, name))


def _typed_object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _typed_object(value.get(name) or {}, name)


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is not a number of seconds")
    return float(value)


def _wall_time(text: str) -> WallTime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"scheduled_at has no time zone: {text}")
    try:
        # It is shown, and written again, in UTC, in which it may be of a year that has no name.
        return WallTime(moment.astimezone(UTC).timestamp())
    except OverflowError as error:
        raise ValueError(f"scheduled_at is no time in UTC: {text}") from error
