"""A lost answer: may have taken effect, and is settled by sending the same transaction again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hamgr.core.cluster import ClusterView
from hamgr.core.result import Result
from hamgr.core.units import Term
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.errors import OutcomeUnknown, StoreUnavailable
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Put, Txn
from hamgr.dcs.transactions import LeaderClaim
from tests.dcs.etcd_members import EtcdCluster, until
from tests.dcs.proxy import Proxy


@pytest.fixture
async def proxy(shared_etcd: EtcdCluster) -> AsyncIterator[Proxy]:
    proxy = await Proxy(shared_etcd.members[0].host).start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def store(shared_etcd: EtcdCluster, keys: ScopeKeys) -> AsyncIterator[EtcdStore]:
    """Connected directly."""
    store = EtcdStore(EtcdClient(shared_etcd.config()), keys)
    yield store
    await store.close()


@pytest.fixture
async def proxied(proxy: Proxy, keys: ScopeKeys) -> AsyncIterator[EtcdStore]:
    """Connected through the proxy, warm."""
    store = EtcdStore(EtcdClient(EtcdConfig((proxy.host,), timeout_s=3.0)), keys)
    await store.read()
    yield store
    await store.close()


async def a_claim(store: EtcdStore) -> LeaderClaim:
    lease_id = (await store.grant_lease(60)).lease_id
    view = await store.read()
    return LeaderClaim("a", lease_id, Term(view.term + 1), view.term_revision)


async def wait_until_led(store: EtcdStore, name: str) -> ClusterView:
    async def is_led() -> bool:
        return (await store.read()).is_led_by(name)

    await until(is_led)
    return await store.read()


async def test_a_claim_whose_answer_was_lost_is_done_once(store: EtcdStore, proxied: EtcdStore, proxy: Proxy) -> None:
    claim = await a_claim(store)
    proxy.lose_answers = True
    taking = asyncio.create_task(proxied.take_leader(claim))
    taken = await wait_until_led(store, "a")
    proxy.lose_answers = False
    proxy.cut()
    assert (await taking).is_done
    view = await store.read()
    assert (view.term, view.leader) == (claim.term, taken.leader)


async def test_a_claim_that_was_lost_on_the_way_is_done_once(
    store: EtcdStore, proxied: EtcdStore, proxy: Proxy
) -> None:
    claim = await a_claim(store)
    proxy.lose_requests = True
    taking = asyncio.create_task(proxied.take_leader(claim))
    await until(lambda: proxy.lost_bytes > 0)
    assert (await store.read()).leader is None
    proxy.lose_requests = False
    proxy.cut()
    assert (await taking).is_done
    assert (await store.read()).term == claim.term


async def test_a_lost_claim_that_another_overtook_is_refused(
    store: EtcdStore, proxied: EtcdStore, proxy: Proxy
) -> None:
    claim = await a_claim(store)
    proxy.lose_requests = True
    taking = asyncio.create_task(proxied.take_leader(claim))
    await until(lambda: proxy.lost_bytes > 0)
    other = LeaderClaim("b", (await store.grant_lease(60)).lease_id, claim.term, claim.term_revision)
    assert (await store.take_leader(other)).is_done
    proxy.lose_requests = False
    proxy.cut()
    assert (await taking).result is Result.REFUSED
    assert (await store.read()).is_led_by("b")


async def test_a_claim_that_cannot_be_settled_is_unknown(store: EtcdStore, proxied: EtcdStore, proxy: Proxy) -> None:
    claim = await a_claim(store)
    proxy.lose_answers = True
    taking = asyncio.create_task(proxied.take_leader(claim))
    await wait_until_led(store, "a")
    await proxy.stop()
    assert (await taking).result is Result.UNKNOWN


async def test_a_change_that_was_never_sent_is_unavailable_not_unknown(proxied: EtcdStore, proxy: Proxy) -> None:
    await proxy.stop()
    with pytest.raises(StoreUnavailable):
        await proxied.read()  # now the client knows that its connection is gone
    with pytest.raises(StoreUnavailable):
        await proxied.put_config({}, 0)


async def test_a_plain_change_without_an_answer_is_unknown(proxy: Proxy, keys: ScopeKeys) -> None:
    async with EtcdClient(EtcdConfig((proxy.host,), timeout_s=1.0)) as client:
        await client.txn(Txn(then=keys.view_ranges))
        proxy.lose_answers = True
        with pytest.raises(OutcomeUnknown):
            await client.txn(Txn(then=(Put(keys.config, "{}"),)))


async def test_a_read_without_an_answer_is_unavailable(proxy: Proxy, keys: ScopeKeys) -> None:
    async with EtcdClient(EtcdConfig((proxy.host,), timeout_s=1.0)) as client:
        await client.txn(Txn(then=keys.view_ranges))
        proxy.lose_answers = True
        with pytest.raises(StoreUnavailable):
            await client.txn(Txn(then=keys.view_ranges))
