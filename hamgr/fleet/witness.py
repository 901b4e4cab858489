"""Who watches a leader key from outside and notes when it went and when it was taken."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from types import TracebackType

from hamgr.dcs.client import EtcdClient
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Changes, Range, Removed, Txn
from hamgr.fleet.agent import NAMESPACE

_IDLE_S = 30.0

_IN_STEP_S = 0.5
"""etcd brings watches that begin in the past up to date every 0.1 s, and tells all that happened meanwhile at once: an
election would seem to take no time. Source: etcd 3.4 mvcc/watchable_store.go, syncWatchersLoop.
"""


class Witness:
    """Both instants come by the same watch, so that its delay counts for neither. From `async with` on."""

    def __init__(self, client: EtcdClient, cluster: str) -> None:
        self._client = client
        self._key = ScopeKeys.of(cluster, NAMESPACE).leader
        self._taken = asyncio.Event()
        self.gone_at_s: float | None = None
        """CLOCK_BOOTTIME, when the key's end was seen."""
        self._gone_ns = 0
        self._taken_ns = 0

    async def __aenter__(self) -> Witness:
        revision = (await self._client.txn(Txn(then=(Range(self._key),)))).revision
        self._watching = asyncio.create_task(self._watch(revision))
        await asyncio.sleep(_IN_STEP_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()

    async def vacancy_s(self, timeout_s: float) -> float | None:
        """How long the key was away; None: it is still there, or still away, after `timeout_s`."""
        try:
            await asyncio.wait_for(self._taken.wait(), timeout_s)
        except TimeoutError:
            return None
        return (self._taken_ns - self._gone_ns) / 1e9

    async def _watch(self, revision: int) -> None:
        async with aclosing(self._client.watch_prefix(self._key, revision, _IDLE_S)) as changes:
            async for change in changes:
                if isinstance(change, Changes):
                    self._note(change)

    def _note(self, change: Changes) -> None:
        for event in change.events:
            if isinstance(event, Removed):
                self._gone_ns = time.monotonic_ns()
                self.gone_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            elif self._gone_ns:
                self._taken_ns = time.monotonic_ns()
                self._taken.set()
