"""Endpoints that die, freeze or are all gone."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from hamgr.dcs import wire
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import Attempts, EtcdConfig, Rotation
from hamgr.dcs.errors import LeaseExpired, StoreUnavailable
from hamgr.dcs.etcd import EtcdStore, boot_time
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.lease import RenewalConnection
from tests.dcs.etcd_members import EtcdCluster, answers, until, wait_until


async def test_calls_survive_the_death_of_any_one_member(three_etcds: EtcdCluster, keys: ScopeKeys) -> None:
    async with EtcdClient(three_etcds.config(timeout_s=10.0)) as client:
        store = EtcdStore(client, keys)
        revision = 0
        for turn, member in enumerate(three_etcds.members):
            await store.read()
            member.kill()
            outcome = await store.put_config({"turn": turn}, revision)
            assert outcome.is_done, outcome
            config = (await store.read()).config
            assert config is not None
            assert config.values == {"turn": turn}
            revision = config.mod_revision
            member.start()
            wait_until(partial(answers, member.host))


async def test_a_frozen_member_costs_one_short_try(three_etcds: EtcdCluster, keys: ScopeKeys) -> None:
    async with EtcdClient(three_etcds.config(timeout_s=10.0)) as client:
        store = EtcdStore(client, keys)
        await store.read()
        frozen = three_etcds.member_of(client.connections.rotation.preferred)
        frozen.freeze()
        await store.read()
        before = client.connections.tries
        for _ in range(5):
            await store.read()
        assert client.connections.tries == before + 5
        assert client.connections.rotation.preferred != frozen.host


async def test_a_cold_client_gets_past_a_frozen_first_endpoint(three_etcds: EtcdCluster, keys: ScopeKeys) -> None:
    three_etcds.members[0].freeze()
    async with EtcdClient(three_etcds.config(timeout_s=10.0)) as client:
        assert (await EtcdStore(client, keys).put_config({}, 0)).is_done


async def test_a_member_without_a_majority_is_unavailable_and_nothing_is_changed(
    three_etcds: EtcdCluster, keys: ScopeKeys
) -> None:
    async with EtcdClient(three_etcds.config(timeout_s=2.0)) as client:
        store = EtcdStore(client, keys)
        await store.read()
        three_etcds.members[1].kill()
        three_etcds.members[2].kill()
        with pytest.raises(StoreUnavailable):
            await store.read()


async def test_there_is_no_hot_loop_while_etcd_is_down(one_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    one_etcd.kill()
    async with EtcdClient(one_etcd.config(timeout_s=2.0)) as client:
        store = EtcdStore(client, keys)
        with pytest.raises(StoreUnavailable):
            await store.read()
        assert client.connections.tries <= 10


async def test_a_call_that_began_while_etcd_was_down_ends_well_once_it_is_up(
    one_etcd: EtcdCluster, keys: ScopeKeys
) -> None:
    one_etcd.kill()
    async with EtcdClient(one_etcd.config(timeout_s=20.0)) as client:
        reading = asyncio.create_task(EtcdStore(client, keys).put_config({}, 0))
        await until(lambda: client.connections.tries >= 2)
        one_etcd.start()
        assert (await reading).is_done


async def granted(cluster: EtcdCluster, ttl_s: float) -> int:
    async with EtcdClient(cluster.config()) as client:
        return (await client.grant_lease(ttl_s)).lease_id


async def test_a_renewal_is_confirmed_by_a_read_of_all_keys(shared_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    lease_id = await granted(shared_etcd, 30)
    async with EtcdClient(shared_etcd.config()) as client:
        store = EtcdStore(client, keys)
        await store.take_initialize("a", lease_id)
        connection = RenewalConnection(shared_etcd.config(), keys)
        renewal = await asyncio.to_thread(connection.renew, lease_id, 5.0)
        connection.close()
        assert renewal.granted_ttl_s == 30
        assert renewal.view.is_led_by("a")
        assert renewal.sent_at < renewal.view.seen_at


class Deposed(RenewalConnection):
    """The first `answers` renewals are answered by a leader of etcd's last term."""

    def __init__(self, config: EtcdConfig, keys: ScopeKeys, answers: int) -> None:
        super().__init__(config, keys)
        self.answers = answers
        self.answered_at = boot_time()

    def _once(self, host: str, method: wire.Method, *arguments: Any) -> Any:
        answer = super()._once(host, method, *arguments)
        if method is wire.LEASE_KEEP_ALIVE and self.answers:
            self.answers -= 1
            self.answered_at = boot_time()
            answer.header.raft_term -= 1
        return answer


async def test_a_renewal_that_a_deposed_leader_of_etcd_answered_does_not_count(
    shared_etcd: EtcdCluster, keys: ScopeKeys
) -> None:
    """Its successor has counted the lease from an earlier instant, whatever keys the read after it shows."""
    lease_id = await granted(shared_etcd, 30)
    connection = Deposed(shared_etcd.config(), keys, 2)
    renewal = await asyncio.to_thread(connection.renew, lease_id, 5.0)
    assert connection.answers == 0
    assert renewal.sent_at > connection.answered_at
    connection.answers = 1_000_000
    with pytest.raises(StoreUnavailable):
        await asyncio.to_thread(connection.renew, lease_id, 0.2)
    connection.close()


class FreshlyStarted(RenewalConnection):
    """The first host is a member of etcd that has applied nothing yet."""

    def _once(self, host: str, method: wire.Method, *arguments: Any) -> Any:
        answer = super()._once(host, method, *arguments)
        if host == self._rotation.hosts[0]:
            answer.header.raft_term = 0
        return answer


async def test_a_member_of_etcd_that_knows_no_term_is_passed_over(shared_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    lease_id = await granted(shared_etcd, 30)
    (host,) = shared_etcd.hosts
    other = host.replace("127.0.0.1", "localhost")
    connection = FreshlyStarted(EtcdConfig((host, other)), keys)
    await asyncio.to_thread(connection.renew, lease_id, 5.0)
    assert connection._rotation.preferred == other
    connection.close()


async def test_a_lease_that_is_gone_is_told_apart_from_an_etcd_that_is_gone(
    one_etcd: EtcdCluster, keys: ScopeKeys
) -> None:
    lease_id = await granted(one_etcd, 30)
    async with EtcdClient(one_etcd.config()) as client:
        await client.revoke_lease(lease_id)
        with pytest.raises(LeaseExpired):
            await client.revoke_lease(lease_id)
    connection = RenewalConnection(one_etcd.config(), keys)
    with pytest.raises(LeaseExpired):
        await asyncio.to_thread(connection.renew, lease_id, 5.0)
    one_etcd.kill()
    with pytest.raises(StoreUnavailable):
        await asyncio.to_thread(connection.renew, lease_id, 0.5)
    connection.close()


async def test_a_lease_that_nobody_renews_expires_with_its_keys(shared_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    async with EtcdClient(shared_etcd.config()) as client:
        store = EtcdStore(client, keys)
        grant = await store.grant_lease(1.5)
        assert grant.ttl_s == 2
        await store.take_initialize("a", grant.lease_id)

        async def is_vacant() -> bool:
            return (await store.read()).leader is None

        await until(is_vacant)


async def test_renewals_go_on_when_any_one_member_freezes(three_etcds: EtcdCluster, keys: ScopeKeys) -> None:
    lease_id = await granted(three_etcds, 30)
    connection = RenewalConnection(three_etcds.config(), keys)
    for member in three_etcds.members:
        await asyncio.to_thread(connection.renew, lease_id, 5.0)
        member.freeze()
        await asyncio.to_thread(connection.renew, lease_id, 10.0)
        member.thaw()
    connection.close()


async def test_close_ends_a_renewal_that_waits(one_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    connection = RenewalConnection(one_etcd.config(), keys)
    await asyncio.to_thread(connection.read, 5.0)
    one_etcd.members[0].freeze()
    renewing = asyncio.create_task(asyncio.to_thread(connection.renew, 1, 600.0))
    await asyncio.sleep(0)
    connection.close()
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(20):
            await renewing
    one_etcd.members[0].thaw()


def test_rotation_passes_a_failed_endpoint_over_once() -> None:
    rotation = Rotation(("a", "b", "c"))
    rotation.pass_over("a")
    rotation.pass_over("a")
    assert rotation.preferred == "b"


def test_attempts_try_every_endpoint_before_they_pause_and_grow_more_patient() -> None:
    attempts = Attempts(100.0, 3, clock=lambda: 0.0)
    first_s = attempts.try_s()
    pauses = [attempts.pause_after_failure_s() for _ in range(6)]
    assert [bool(pause) for pause in pauses] == [False, False, True, False, False, True]
    assert pauses[5] > pauses[2]  # type: ignore[operator]
    assert attempts.try_s() > 2 * first_s
