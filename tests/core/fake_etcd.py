"""A store in memory with etcd's meaning: revisions, leases, transactions that compare and then write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hamgr.core.cluster import ClusterView, Config, LeaderKey, Request, Status
from hamgr.core.units import Instant, Term


@dataclass
class Lease:
    ttl_s: float
    expires_at: float


@dataclass
class Entry:
    value: Any
    revision: int
    lease_id: int = 0


@dataclass
class FakeEtcd:
    """Keys hold the core's own values. `changed` counts as etcd's revision does."""

    revision: int = 1
    keys: dict[str, Entry] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    next_lease: int = 100

    def mod(self, key: str) -> int:
        return self.keys[key].revision if key in self.keys else 0

    def get(self, key: str, default: Any = None) -> Any:
        return self.keys[key].value if key in self.keys else default

    def write(self, puts: Mapping[str, tuple[Any, int]], deletes: tuple[str, ...] = ()) -> None:
        """One revision for all of it. A put is (value, lease id or 0); a delete ending in '/' takes the range."""
        self.revision += 1
        for name in deletes:
            for key in [key for key in self.keys if key == name or (name.endswith("/") and key.startswith(name))]:
                del self.keys[key]
        for key, (value, lease_id) in puts.items():
            self.keys[key] = Entry(value, self.revision, lease_id)

    def grant(self, ttl_s: float, now: float) -> int:
        self.next_lease += 1
        self.leases[self.next_lease] = Lease(ttl_s, now + ttl_s)
        return self.next_lease

    def renew(self, lease_id: int, now: float) -> bool:
        if lease_id not in self.leases:
            return False
        self.leases[lease_id].expires_at = now + self.leases[lease_id].ttl_s
        return True

    def expire(self, now: float) -> bool:
        """True when a lease ran out and keys went with it."""
        gone = [lease_id for lease_id, lease in self.leases.items() if lease.expires_at <= now]
        for lease_id in gone:
            del self.leases[lease_id]
            lost = tuple(key for key, entry in self.keys.items() if entry.lease_id == lease_id)
            if lost:
                self.write({}, lost)
        return bool(gone)

    def view(self, now: float) -> ClusterView:
        leader = self.keys.get("leader")
        initialize = self.keys.get("initialize")
        return ClusterView(
            revision=self.revision,
            seen_at=Instant(now),
            system_identifier=initialize.value if initialize else "",
            initialize_revision=initialize.revision if initialize else 0,
            config=Config(self.get("config"), self.mod("config")) if "config" in self.keys else None,
            leader=LeaderKey(leader.value, leader.lease_id, leader.revision) if leader else None,
            term=Term(self.get("term", 0)),
            term_revision=self.mod("term"),
            status=self.get("status", Status()),
            members=self._all("members/", lambda e: replace(e.value, lease_id=e.lease_id, mod_revision=e.revision)),
            request=self._request(),
            ballots=self._all("ballots/", lambda e: replace(e.value, mod_revision=e.revision)),
            history=self.get("history", ()),
            history_revision=self.mod("history"),
            roster=self.get("roster", {}),
            roster_revision=self.mod("roster"),
            released_term=Term(self.get("released", 0)),
        )

    def _request(self) -> Request | None:
        entry = self.keys.get("failover")
        return replace(entry.value, mod_revision=entry.revision) if entry else None

    def _all(self, prefix: str, made: Callable[[Entry], Any]) -> tuple[Any, ...]:
        return tuple(made(entry) for key, entry in sorted(self.keys.items()) if key.startswith(prefix))
