"""Values to the text that is kept in etcd. Shapes and names are Patroni's where it has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from hamgr.core.cluster import Ballot, HistoryLine, Member, Offer, Request, Status, SyncState, Tags


def encode_json(value: Any) -> str:
    """Compact JSON. Raises ValueError for what JSON cannot say (NaN, infinity)."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def encode_tags(tags: Tags) -> dict[str, Any]:
    """Only what differs from the default, as Patroni writes them."""
    default = Tags()
    names = ("nofailover", "noloadbalance", "clonefrom", "nosync", "failover_priority", "sync_priority")
    own = {name: getattr(tags, name) for name in names if getattr(tags, name) != getattr(default, name)}
    return {**tags.extra, **own}


def encode_member(member: Member) -> str:
    """The `members/<name>` value; what is unknown or default is left out."""
    optional = {
        "xlog_location": int(member.xlog_location),
        "timeline": int(member.timeline),
        "timeline_term": int(member.timeline_term),
        "replication_state": member.replication_state,
        "server_version": member.server_version,
        "tags": encode_tags(member.tags),
        "pending_restart": member.pending_restart,
        "ready_for": member.ready_for,
        "note": member.note,
        "ill": member.ill,
    }
    return encode_json(
        {
            "conn_url": member.conn_url,
            "api_url": member.api_url,
            "state": member.state,
            "role": member.role,
            "version": member.version,
            **{name: value for name, value in optional.items() if value},
        }
    )


def encode_status(status: Status) -> str:
    """The `status` value; `timeline`, `timeline_term` and `lost_slots` (left out where there is none) are ours."""
    slots = {name: int(lsn) for name, lsn in status.slots.items()}
    lost = {name: int(lsn) for name, lsn in status.lost_slots.items()}
    optional = {"timeline_term": int(status.timeline_term), "lost_slots": lost}
    rest = {name: value for name, value in optional.items() if value}
    return encode_json({"optime": int(status.optime), "slots": slots, "timeline": int(status.timeline), **rest})


def encode_ballot(ballot: Ballot) -> str:
    """The `ballots/<name>` value."""
    return encode_json(
        {
            "term": int(ballot.term),
            "timeline": int(ballot.timeline),
            "lsn": int(ballot.lsn),
            "priority": ballot.priority,
            "timeline_term": int(ballot.timeline_term),
        }
    )


def encode_request(request: Request) -> str:
    """The `failover` value. `scheduled_at` is ISO 8601 with a time zone; `allow_data_loss` and `offer` are ours."""
    value: dict[str, Any] = {}
    if request.leader:
        value["leader"] = request.leader
    if request.candidate:
        value["candidate"] = request.candidate
    if request.scheduled_at is not None:
        value["scheduled_at"] = datetime.fromtimestamp(request.scheduled_at, UTC).isoformat()
    if request.allow_data_loss:
        value["allow_data_loss"] = True
    if request.offer is not None:
        value["offer"] = _offer(request.offer)
    return encode_json(value)


def _offer(offer: Offer) -> dict[str, Any]:
    notes = {"notes": list(offer.notes)} if offer.notes else {}
    return {
        "holder": offer.holder,
        "term": int(offer.term),
        "timeline": int(offer.timeline),
        "lsn": int(offer.lsn),
        "cause": offer.cause,
        "elapsed_s": dict(offer.elapsed_s),
        "timeline_term": int(offer.timeline_term),
        **notes,
    }


def encode_sync(sync: SyncState) -> str:
    """The `sync` value; no member at all is null, as Patroni writes it."""
    return encode_json(
        {"leader": sync.leader or None, "sync_standby": ",".join(sync.members) or None, "quorum": sync.quorum}
    )


def encode_history(lines: Iterable[HistoryLine]) -> str:
    """The `history` value: a list of [timeline, lsn, reason, timestamp, new leader]."""
    return encode_json(
        [[int(line.timeline), int(line.lsn), line.reason, line.timestamp, line.new_leader] for line in lines]
    )


def encode_roster(roster: Mapping[str, str]) -> str:
    """The `failsafe` value: member -> REST address."""
    return encode_json(dict(sorted(roster.items())))
