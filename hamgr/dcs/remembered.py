"""The keys of a cluster as a member remembers them while etcd is gone: the text of a file beside its data directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hamgr.core.cluster import ClusterView, Member
from hamgr.core.units import Instant
from hamgr.dcs import codec
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Entry
from hamgr.dcs.view import decode_view

LAYOUT = 1
SUFFIX = ".hamgr-cluster.json"
"""Of the file's name, after that of the data directory."""


def remembered(keys: ScopeKeys, view: ClusterView) -> str:
    """What of a view is worth remembering."""
    rows = [
        [keys.relative(entry.key), entry.value, entry.lease_id, entry.mod_revision] for entry in entries_of(keys, view)
    ]
    return json.dumps({"layout": LAYOUT, "prefix": keys.prefix, "keys": rows}, indent=0)


def recalled(keys: ScopeKeys, text: str, seen_at: Instant) -> ClusterView:
    """The view, at revision 0: anything that etcd tells is newer.

    Raises ValueError if the text is not whole, or of another cluster.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("layout") != LAYOUT:
        raise ValueError("not a file of this version")
    if found.get("prefix") != keys.prefix:
        raise ValueError(f"it is of another cluster ({found.get('prefix')!r}, not {keys.prefix!r})")
    rows = found.get("keys")
    if not isinstance(rows, list):
        raise ValueError("it holds no keys")
    view = decode_view(keys, [_entry(keys, row) for row in rows], 0, seen_at)
    if view.problems:
        raise ValueError("; ".join(view.problems))
    return view


def _entry(keys: ScopeKeys, row: Any) -> Entry:
    match row:
        case [str(name), str(value), int(lease_id), int(revision)]:
            return Entry(keys.prefix + name, value, lease_id, revision)
    raise ValueError(f"not a key: {row!r}"[:80])


def entries_of(keys: ScopeKeys, view: ClusterView) -> Iterator[Entry]:
    """The keys of a view that a member starts with, as etcd holds them. What changes all the time is left out."""
    if view.system_identifier:
        yield Entry(keys.initialize, view.system_identifier, 0, view.initialize_revision)
    if view.config is not None and view.config.values is not None:
        yield Entry(keys.config, codec.encode_json(dict(view.config.values)), 0, view.config.mod_revision)
    if view.leader is not None:
        yield Entry(keys.leader, view.leader.name, view.leader.lease_id, view.leader.mod_revision)
    if view.term_revision:
        yield Entry(keys.term, str(view.term), 0, view.term_revision)
    if view.sync is not None:
        yield Entry(keys.sync, codec.encode_sync(view.sync), 0, view.sync.mod_revision)
    if view.roster_revision:
        yield Entry(keys.roster, codec.encode_roster(view.roster), 0, view.roster_revision)
    for member in view.members:
        yield Entry(keys.member(member.name), codec.encode_member(_addressed(member)), member.lease_id, 0)


def _addressed(member: Member) -> Member:
    """Who and where it is, and nothing of how it is doing: of that nobody can know later."""
    return Member(
        name=member.name,
        conn_url=member.conn_url,
        api_url=member.api_url,
        role=member.role,
        version=member.version,
        server_version=member.server_version,
        tags=member.tags,
    )
