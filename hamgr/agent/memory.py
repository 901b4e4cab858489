"""What a member remembers of the cluster while etcd is gone: a file beside the data directory. DESIGN.md 5.8."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hamgr.agent.journal import LOGGER
from hamgr.core.cluster import ClusterView, Member
from hamgr.core.units import Instant
from hamgr.dcs import codec
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Entry
from hamgr.dcs.view import decode_view
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerError
from hamgr.postgres.files import read_text, remove, write_if_changed

LAYOUT = 1
DISK_TIMEOUT_S = 5.0


class Memory:
    """Owner of the file. Its reads and writes have threads of their own, so that a hung disk delays no decision."""

    def __init__(self, path: Path, keys: ScopeKeys) -> None:
        self._path = path
        self._keys = keys
        self._disk = Disk(DISK_TIMEOUT_S)
        self._view: ClusterView | None = None
        self._wider: Mapping[str, str] = {}
        self._text = ""
        self._written = ""
        self._noted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._is_failing = False

    def note(self, view: ClusterView) -> None:
        """What of this view is worth remembering will be written by `run`. Only for what etcd has told."""
        if view is self._view:
            return
        self._view = view
        if self._wider.items() <= view.roster.items():
            self._wider = {}
        self._text = self._remembered(view)
        if self._text != self._written:
            self._noted.set()

    async def run(self) -> None:
        """For ever: what was noted last is in the file. A failure is told once, and tried again at the next change."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            try:
                await self._write()
            except ServerError as error:
                self._tell(error)

    async def widen(self, roster: Mapping[str, str]) -> None:
        """The file holds these members too, or there is none: to be called before a roster is entered in etcd.

        Raises ServerError if the file can be neither written nor removed.
        """
        if self._view is None:
            return
        self._wider = {**self._wider, **roster}
        self._text = self._remembered(self._view)
        try:
            await self._write()
        except ServerError as error:
            self._tell(error)
            await self._disk.run(lambda: remove(self._path), f"remove {self._path}")
            self._written = ""

    async def recall(self, seen_at: Instant) -> ClusterView | None:
        """The cluster as it was noted last, at revision 0: anything that etcd tells is newer. None: nothing usable."""
        try:
            text = await self._disk.run(lambda: read_text(self._path), f"read {self._path}")
            return None if text is None else self._view_of(text, seen_at)
        except (ServerError, ValueError, RecursionError) as error:
            LOGGER.warning("what was remembered of the cluster is not used: %s: %s", self._path, error)
            return None

    async def _write(self) -> None:
        async with self._writing:
            text = self._text
            if text != self._written:
                await self._disk.run(lambda: write_if_changed(self._path, text), f"write {self._path}")
                self._written = text
                self._is_failing = False

    def _tell(self, error: ServerError) -> None:
        if not self._is_failing:
            LOGGER.warning("should this agent be restarted while etcd is gone, it will know less: %s", error)
        self._is_failing = True

    def _remembered(self, view: ClusterView) -> str:
        wider = replace(view, roster={**self._wider, **view.roster})
        rows = [
            [self._keys.relative(entry.key), entry.value, entry.lease_id, entry.mod_revision]
            for entry in entries_of(self._keys, wider)
        ]
        return json.dumps({"layout": LAYOUT, "prefix": self._keys.prefix, "keys": rows}, indent=0)

    def _view_of(self, text: str, seen_at: Instant) -> ClusterView:
        """Raises ValueError if the file is not whole, or of another cluster."""
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("layout") != LAYOUT:
            raise ValueError("not a file of this version")
        if found.get("prefix") != self._keys.prefix:
            raise ValueError(f"it is of another cluster ({found.get('prefix')!r}, not {self._keys.prefix!r})")
        rows = found.get("keys")
        if not isinstance(rows, list):
            raise ValueError("it holds no keys")
        view = decode_view(self._keys, [self._entry(row) for row in rows], 0, seen_at)
        if view.problems:
            raise ValueError("; ".join(view.problems))
        return view

    def _entry(self, row: Any) -> Entry:
        match row:
            case [str(name), str(value), int(lease_id), int(revision)]:
                return Entry(self._keys.prefix + name, value, lease_id, revision)
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
