"""What the agents of one process measured: round trips of renewals, and when a change was sent and seen."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields

from hamgr.core.cluster import ClusterView, Status
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.errors import StoreError
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.lease import Renewal, RenewalConnection
from hamgr.dcs.store import TxnOutcome, ViewChange

Sent = tuple[str, int, int]
"""Cluster, revision of the change, CLOCK_MONOTONIC in nanoseconds before it was sent."""
Seen = tuple[str, str, int, int]
"""Cluster, member, revision of the view, CLOCK_MONOTONIC in nanoseconds at which its watch yielded it."""


@dataclass(slots=True)
class Samples:
    """Filled by agents and their renewal threads, taken by whoever asks. Appending is atomic."""

    renewals_s: list[float] = field(default_factory=list)
    """From sending a renewal to the answer of the read that confirms it."""
    failed_renewals: list[str] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    """Positions that leaders wrote."""
    seen: list[Seen] = field(default_factory=list)
    """One for each watch that a change reached."""
    lost_leases: list[str] = field(default_factory=list)
    """Leases of living agents that etcd said are gone."""
    problems: list[str] = field(default_factory=list)
    """What must not happen to a light agent: a decision to exit, a bug, a fence."""

    def take(self) -> Samples:
        """What there is so far, which is here no more."""
        taken = Samples()
        for each in fields(self):
            setattr(taken, each.name, getattr(self, each.name))
            setattr(self, each.name, [])
        return taken

    def add(self, other: Samples) -> None:
        """What the other one holds is here too."""
        for each in fields(self):
            getattr(self, each.name).extend(getattr(other, each.name))


class TimedRenewal:
    """The agent's renewal call, with a watch beside it."""

    def __init__(self, call: RenewalConnection, samples: Samples) -> None:
        self._call = call
        self._samples = samples

    def renew(self, lease_id: int, budget_s: float) -> Renewal:
        began = time.monotonic()
        try:
            renewal = self._call.renew(lease_id, budget_s)
        except StoreError as error:
            self._samples.failed_renewals.append(str(error))
            raise
        self._samples.renewals_s.append(time.monotonic() - began)
        return renewal

    def read(self, budget_s: float) -> ClusterView:
        return self._call.read(budget_s)

    def close(self) -> None:
        self._call.close()


class TimedStore(EtcdStore):
    """The agent's store, which notes when a position was sent and when a change came by the watch."""

    def __init__(self, client: EtcdClient, keys: ScopeKeys, cluster: str, member: str, samples: Samples) -> None:
        super().__init__(client, keys)
        self._cluster = cluster
        self._member = member
        self._samples = samples

    async def put_status(self, status: Status, me: str) -> TxnOutcome:
        sent_ns = time.monotonic_ns()
        outcome = await super().put_status(status, me)
        if outcome.is_done:
            self._samples.sent.append((self._cluster, outcome.revision, sent_ns))
        return outcome

    async def watch(self, from_revision: int, idle_s: float) -> AsyncIterator[ViewChange]:
        async for change in super().watch(from_revision, idle_s):
            if isinstance(change, ClusterView):
                self._samples.seen.append((self._cluster, self._member, change.revision, time.monotonic_ns()))
            yield change
