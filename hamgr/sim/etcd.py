"""A store in memory with etcd's meaning: revisions, leases, transactions, and times without a leader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hamgr.core.cluster import ClusterView, Config, LeaderKey, Request, Status
from hamgr.core.units import Instant, Term


@dataclass(slots=True)
class Lease:
    """Granted to `holder`; every renewal counts from when it is processed."""

    ttl_s: float
    expires_at: float
    holder: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: its value, the revision of its last change, the lease that it hangs on (0: none)."""

    value: Any
    revision: int
    lease_id: int = 0


OnWrite = Callable[[Mapping[str, tuple[Any, int]], tuple[str, ...]], None]
"""Told of every revision before it counts: what is put, and which keys go."""


class Etcd:
    """Keys hold the core's own values. Times are the world's, which is etcd's own clock."""

    def __init__(self) -> None:
        self.revision = 1
        self.keys: dict[str, Entry] = {}
        self.leases: dict[int, Lease] = {}
        self.answers = True
        """It has a leader; else nothing is processed and no lease runs out."""
        self.refuses = True
        """While it does not answer: connections are refused, else it is silent."""
        self.waiting: list[Callable[[], None]] = []
        """Requests that came while it had none and are carried out once it has one."""
        self.before_write: list[OnWrite] = []
        self.after_write: list[Callable[[], None]] = []
        self._next_lease = 100
        self._view: ClusterView | None = None

    def mod(self, key: str) -> int:
        """The key's mod_revision; 0 while it is absent."""
        entry = self.keys.get(key)
        return entry.revision if entry is not None else 0

    def get(self, key: str, default: Any = None) -> Any:
        """The key's value."""
        entry = self.keys.get(key)
        return entry.value if entry is not None else default

    def write(self, puts: Mapping[str, tuple[Any, int]], deletes: tuple[str, ...] = ()) -> None:
        """One revision for all of it. A put is (value, lease id or 0); a delete that ends in '/' takes the range."""
        gone = tuple(key for key in self.keys if key in deletes or any(_is_below(key, each) for each in deletes))
        for look in self.before_write:
            look(puts, gone)
        self.revision += 1
        for key in gone:
            del self.keys[key]
        for key, (value, lease_id) in puts.items():
            self.keys[key] = Entry(value, self.revision, lease_id)
        self._view = None
        for tell in self.after_write:
            tell()

    # -- leases ------------------------------------------------------------------------------------------------

    def grant(self, ttl_s: float, now: float, holder: str = "") -> int:
        """A new lease, counted from now."""
        self._next_lease += 1
        self.leases[self._next_lease] = Lease(ttl_s, now + ttl_s, holder)
        return self._next_lease

    def renew(self, lease_id: int, now: float) -> float:
        """The lease counts from now: its ttl; 0 if it is gone."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return 0.0
        lease.expires_at = now + lease.ttl_s
        return lease.ttl_s

    def revoke(self, lease_id: int) -> None:
        """The lease is gone, and the keys that hang on it."""
        if self.leases.pop(lease_id, None) is not None:
            self._drop_keys_of(lease_id)

    def expire(self, now: float) -> None:
        """Leases that have run out go, each with its keys in a revision of its own."""
        for lease_id in [number for number, lease in self.leases.items() if lease.expires_at <= now]:
            self.revoke(lease_id)

    def extend_all(self, now: float) -> None:
        """A new leader of etcd lets every lease count afresh."""
        for lease in self.leases.values():
            lease.expires_at = now + lease.ttl_s

    def _drop_keys_of(self, lease_id: int) -> None:
        lost = tuple(key for key, entry in self.keys.items() if entry.lease_id == lease_id)
        if lost:
            self.write({}, lost)

    # -- reading -----------------------------------------------------------------------------------------------

    def view(self, seen_at: float) -> ClusterView:
        """All keys as one value."""
        if self._view is None:
            self._view = self._read()
        return self._view._replace(seen_at=Instant(seen_at))

    def _read(self) -> ClusterView:
        leader = self.keys.get("leader")
        sync = self.keys.get("sync")
        request = self.keys.get("failover")
        return ClusterView(
            revision=self.revision,
            seen_at=Instant(0.0),
            system_identifier=self.get("initialize", ""),
            initialize_revision=self.mod("initialize"),
            config=Config(self.get("config"), self.mod("config")) if "config" in self.keys else None,
            leader=LeaderKey(leader.value, leader.lease_id, leader.revision) if leader else None,
            term=Term(self.get("term", 0)),
            term_revision=self.mod("term"),
            status=self.get("status", Status()),
            members=self._all("members/", lambda e: e.value._replace(lease_id=e.lease_id, mod_revision=e.revision)),
            request=_stamped(request) if request else None,
            ballots=self._all("ballots/", lambda e: replace(e.value, mod_revision=e.revision)),
            sync=replace(sync.value, mod_revision=sync.revision) if sync else None,
            history=self.get("history", ()),
            history_revision=self.mod("history"),
            roster=self.get("failsafe", {}),
            roster_revision=self.mod("failsafe"),
            released_term=Term(self.get("released", 0)),
        )

    def _all(self, prefix: str, made: Callable[[Entry], Any]) -> tuple[Any, ...]:
        return tuple(made(self.keys[key]) for key in sorted(self.keys) if key.startswith(prefix))


def _stamped(entry: Entry) -> Request:
    request: Request = entry.value
    return replace(request, mod_revision=entry.revision)


def _is_below(key: str, prefix: str) -> bool:
    return prefix.endswith("/") and key.startswith(prefix)
