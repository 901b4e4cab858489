"""What a member remembers of the cluster while etcd is gone: a file beside the data directory. DESIGN.md 5.8."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from hamgr.agent.journal import LOGGER
from hamgr.core.cluster import ClusterView
from hamgr.core.units import Instant
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.remembered import recalled, remembered
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerError
from hamgr.postgres.files import read_text, remove, write_beside

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
            return None if text is None else recalled(self._keys, text, seen_at)
        except (ServerError, ValueError, RecursionError) as error:
            LOGGER.warning("what was remembered of the cluster is not used: %s: %s", self._path, error)
            return None

    async def _write(self) -> None:
        async with self._writing:
            text = self._text
            if text != self._written:
                await self._disk.run(lambda: write_beside(self._path, text), f"write {self._path}")
                self._written = text
                self._is_failing = False

    def _tell(self, error: ServerError) -> None:
        if not self._is_failing:
            LOGGER.warning("should this agent be restarted while etcd is gone, it will know less: %s", error)
        self._is_failing = True

    def _remembered(self, view: ClusterView) -> str:
        return remembered(self._keys, view._replace(roster={**self._wider, **view.roster}))
