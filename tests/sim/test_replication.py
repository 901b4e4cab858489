"""The simulated PostgreSQL acknowledges what the real one would, and no more."""

from __future__ import annotations

import random

import pytest

from hamgr.core.quorum import BLOCKED, SyncRule
from hamgr.core.units import Lsn
from hamgr.sim.ground import Ground
from hamgr.sim.pace import STILL
from hamgr.sim.postgres import Server, Written
from hamgr.sim.replication import Replication
from hamgr.sim.world import World


class Trio:
    """A primary and two standbys that stream from it."""

    def __init__(self) -> None:
        self.ground = Ground(random.Random(0), STILL)
        self.replication = Replication(self.ground)
        self.primary, *self.standbys = (Server(self.ground, name) for name in ("alpha", "beta", "gamma"))
        self.acknowledged: list[int] = []
        for server in (self.primary, *self.standbys):
            self.replication.add(server)
            server.on_acknowledged = lambda written: self.acknowledged.append(written.number)
            server.on_ready = lambda ready: self.replication.seek(ready) if ready.in_recovery else None
        self.primary.initialise("system")
        self.primary.start(as_standby=False)
        self.primary.slots = {standby.name: Lsn(0) for standby in self.standbys}
        for standby in self.standbys:
            standby.copy_from(self.primary)
            standby.start(as_standby=True, upstream="alpha.host:5432")
        self.go_on()

    def go_on(self) -> None:
        end = self.ground.now + 1.0
        while self.ground.schedule.next_at <= end:
            self.ground.schedule.step()

    def commit(self, number: int) -> None:
        self.primary.commit(Written(number, "alpha", self.ground.now), 100)
        self.go_on()


@pytest.mark.parametrize(
    ("rule", "lagging", "is_acknowledged"),
    [
        (SyncRule(), ("beta", "gamma"), True),
        (SyncRule(("beta",), 1), ("gamma",), True),
        (SyncRule(("beta",), 1), ("beta",), False),
        (SyncRule(("beta", "gamma"), 1, any_of=True), ("beta",), True),
        (SyncRule(("beta", "gamma"), 2, any_of=True), ("beta",), False),
        (SyncRule(("beta", "gamma"), 1, any_of=True), ("beta", "gamma"), False),
        (BLOCKED, (), False),
    ],
)
def test_a_commit_is_acknowledged_by_the_rule_in_force(
    rule: SyncRule, lagging: tuple[str, ...], is_acknowledged: bool
) -> None:
    trio = Trio()
    trio.primary.set_sync(rule, 0.0)
    for standby in trio.standbys:
        standby.receives = standby.name not in lagging
    trio.commit(1)
    assert trio.acknowledged == ([1] if is_acknowledged else [])


def test_a_stopped_receiver_takes_nothing_that_was_on_its_way() -> None:
    trio = Trio()
    beta = trio.standbys[0]
    had = beta.lsn
    trio.primary.append(1, 100)
    trio.replication.stop_receiver(beta)
    trio.go_on()
    assert beta.lsn == had
    assert trio.standbys[1].lsn == trio.primary.lsn


def test_a_shutdown_in_order_leaves_no_wal_behind() -> None:
    trio = Trio()
    trio.primary.append(1, 100)
    trio.primary.begin_stop(0.005)
    trio.go_on()
    assert trio.primary.was_clean
    assert all(standby.lsn == trio.primary.lsn for standby in trio.standbys)


def test_a_lease_counts_afresh_after_etcd_has_elected() -> None:
    world = World()
    lease_id = world.etcd.grant(5.0, world.now)
    world.run(4.0)
    world.stop_etcd()
    world.run(60.0)
    world.start_etcd()
    world.run(4.9)
    assert lease_id in world.etcd.leases
    world.run(0.2)
    assert lease_id not in world.etcd.leases
