"""etcd in memory, behind the same client interface. Passes the same contract tests as the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from hamgr.dcs.errors import LeaseExpired
from hamgr.dcs.ops import Answer, Changes, Compare, Delete, Entry, Gap, Grant, Interrupted, Op, Put, Range, Removed, Txn


@dataclass
class FakeEtcd:
    """The state that several clients share. Leases end by `expire` only."""

    revision: int = 1
    entries: dict[str, Entry] = field(default_factory=dict)
    leases: dict[int, int] = field(default_factory=dict)
    log: list[Changes] = field(default_factory=list)
    compacted: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def selected(self, op: Range | Delete) -> list[Entry]:
        if not op.end:
            return [self.entries[op.key]] if op.key in self.entries else []
        return [entry for key, entry in sorted(self.entries.items()) if op.key <= key < op.end]

    def is_true(self, compare: Compare) -> bool:
        entry = self.entries.get(compare.key)
        if entry is None:
            return compare.equals == 0
        return bool(getattr(entry, compare.field) == compare.equals)

    def apply(self, ops: tuple[Op, ...]) -> tuple[tuple[Entry, ...], ...]:
        for op in ops:
            if isinstance(op, Put) and op.lease_id and op.lease_id not in self.leases:
                raise LeaseExpired("etcdserver: requested lease not found")
        revision, ranges, events = self.revision + 1, [], []
        for op in ops:
            if isinstance(op, Put):
                entry = Entry(op.key, op.value, op.lease_id, revision)
                self.entries[op.key] = entry
                events.append(entry)
            elif isinstance(op, Delete):
                events += self.remove([entry.key for entry in self.selected(op)], revision)
            else:
                found = self.selected(op)
                ranges.append(tuple(Entry(e.key, "", e.lease_id, e.mod_revision) if op.keys_only else e for e in found))
        self.enter(revision, events)
        return tuple(ranges)

    def remove(self, keys: list[str], revision: int) -> list[Entry | Removed]:
        return [Removed(self.entries.pop(key).key, revision) for key in keys]

    def enter(self, revision: int, events: list[Entry | Removed]) -> None:
        if events:
            self.revision = revision
            self.log.append(Changes(revision, tuple(events)))

    async def end_lease(self, lease_id: int) -> None:
        if lease_id not in self.leases:
            raise LeaseExpired("etcdserver: requested lease not found")
        del self.leases[lease_id]
        keys = [entry.key for entry in self.entries.values() if entry.lease_id == lease_id]
        self.enter(self.revision + 1, self.remove(keys, self.revision + 1))
        async with self.changed:
            self.changed.notify_all()

    def compact(self) -> None:
        self.compacted = self.revision
        self.log.clear()


class FakeClient:
    """One client's connection to it."""

    def __init__(self, etcd: FakeEtcd) -> None:
        self.etcd = etcd

    async def txn(self, txn: Txn, *, resend: bool = False, budget_s: float | None = None) -> Answer:
        await asyncio.sleep(0)
        succeeded = all(self.etcd.is_true(compare) for compare in txn.compares)
        ranges = self.etcd.apply(txn.then if succeeded else txn.otherwise)
        async with self.etcd.changed:
            self.etcd.changed.notify_all()
        return Answer(succeeded, self.etcd.revision, ranges)

    async def grant_lease(self, ttl_s: float, budget_s: float | None = None) -> Grant:
        lease_id = len(self.etcd.leases) + 1000 + self.etcd.revision
        self.etcd.leases[lease_id] = int(ttl_s)
        return Grant(lease_id, float(int(ttl_s)))

    async def revoke_lease(self, lease_id: int, budget_s: float | None = None) -> None:
        await self.etcd.end_lease(lease_id)

    async def watch_prefix(
        self, prefix: str, after_revision: int, idle_s: float
    ) -> AsyncGenerator[Changes | Interrupted | Gap, None]:
        seen = after_revision
        while True:
            if seen < self.etcd.compacted:
                yield Gap("compacted")
                return
            for changes in [changes for changes in self.etcd.log if changes.revision > seen]:
                seen = changes.revision
                events = tuple(event for event in changes.events if event.key.startswith(prefix))
                if events:
                    yield Changes(changes.revision, events)
            async with self.etcd.changed:
                if self.etcd.revision == seen:
                    await self.etcd.changed.wait()
                elif not any(changes.revision > seen for changes in self.etcd.log):
                    seen = max(seen, self.etcd.compacted)

    async def close(self) -> None:
        return None
