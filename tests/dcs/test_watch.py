"""Watches over dead and frozen members and compactions."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2, rpc_pb2_grpc

from hamgr.dcs import stream
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Changes, Gap, Interrupted, Put, Txn
from tests.dcs.etcd_members import EtcdCluster


async def written(client: EtcdClient, keys: ScopeKeys, number: int) -> int:
    """Write the config key; its revision."""
    answer = await client.txn(Txn(then=(Put(keys.config, str(number)),)), resend=True, budget_s=20.0)
    return answer.revision


async def test_no_change_is_lost_or_seen_twice_when_the_watched_member_dies(
    three_etcds: EtcdCluster, keys: ScopeKeys
) -> None:
    first, *rest = three_etcds.members
    writer = EtcdClient(EtcdConfig(tuple(member.host for member in rest), timeout_s=10.0))
    async with writer, EtcdClient(three_etcds.config()) as client, asyncio.timeout(60):
        start = await written(writer, keys, 0)
        seen: list[str] = []
        interruptions = 0
        async with aclosing(client.watch_prefix(keys.prefix, start, 2.0)) as changes:
            pending = asyncio.ensure_future(anext(changes))
            for number in range(1, 31):
                if number == 10:
                    first.kill()
                await written(writer, keys, number)
            while len(seen) < 30:
                change = await pending
                pending = asyncio.ensure_future(anext(changes))
                interruptions += isinstance(change, Interrupted)
                seen += [event.value for event in change.events] if isinstance(change, Changes) else []  # type: ignore
            pending.cancel()
            await asyncio.wait({pending})
        assert seen == [str(number) for number in range(1, 31)]
        assert interruptions >= 1


async def test_a_frozen_member_is_noticed_by_a_watch_that_has_nothing_to_say(
    three_etcds: EtcdCluster, keys: ScopeKeys
) -> None:
    first, *rest = three_etcds.members
    writer = EtcdClient(EtcdConfig(tuple(member.host for member in rest), timeout_s=10.0))
    async with writer, EtcdClient(three_etcds.config()) as client, asyncio.timeout(60):
        start = await written(writer, keys, 0)
        async with aclosing(client.watch_prefix(keys.prefix, start, 1.0)) as changes:
            await written(writer, keys, 1)
            assert isinstance(await anext(changes), Changes)
            assert client.connections.rotation.preferred == first.host
            first.freeze()
            assert isinstance(await anext(changes), Interrupted)
            revision = await written(writer, keys, 2)
            while not isinstance(change := await anext(changes), Changes):
                assert isinstance(change, Interrupted)
            assert change.revision == revision


async def test_a_quiet_watch_on_a_healthy_member_is_not_interrupted(shared_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    async with EtcdClient(shared_etcd.config()) as client, asyncio.timeout(60):
        start = await written(client, keys, 0)
        async with aclosing(client.watch_prefix(keys.prefix, start, 0.2)) as changes:
            pending = asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait({pending}, timeout=1.0)
            assert not done
            revision = await written(client, keys, 1)
            change = await pending
            assert isinstance(change, Changes)
            assert change.revision == revision


async def test_a_compaction_past_the_start_is_a_gap(shared_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    async with EtcdClient(shared_etcd.config()) as client, asyncio.timeout(60):
        store = EtcdStore(client, keys)
        view = await store.read()
        views = store.watch(view.revision, 5.0)
        last = [await written(client, keys, number) for number in range(3)][-1]
        with grpc.insecure_channel(shared_etcd.hosts[0]) as channel:
            rpc_pb2_grpc.KVStub(channel).Compact(rpc_pb2.CompactionRequest(revision=last, physical=True))
        assert [type(change) async for change in views] == [Gap]


async def test_a_watch_while_etcd_is_down_backs_off_and_resumes(one_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    async with EtcdClient(one_etcd.config(timeout_s=20.0)) as client, asyncio.timeout(60):
        start = await written(client, keys, 0)
        async with aclosing(client.watch_prefix(keys.prefix, start, 2.0)) as changes:
            await written(client, keys, 1)
            assert isinstance(await anext(changes), Changes)
            one_etcd.kill()
            began = asyncio.get_running_loop().time()
            interruptions = 0
            while asyncio.get_running_loop().time() - began < 2.0:
                assert isinstance(await anext(changes), Interrupted)
                interruptions += 1
            assert interruptions <= 10
            one_etcd.start()
            revision = await written(client, keys, 2)
            while not isinstance(change := await anext(changes), Changes):
                assert isinstance(change, Interrupted)
            assert change.revision == revision


async def test_a_stream_that_ended_unseen_is_no_defect() -> None:
    """The agent did not get to run meanwhile: the call is over, and what was read of it is still to be taken in."""

    class Ended:
        async def read(self) -> object:
            await asyncio.sleep(0.03)
            return grpc.aio.EOF

        async def write(self, _message: object) -> None:
            raise asyncio.InvalidStateError("RPC already finished.")

    assert await stream._next_response(Ended(), 0.04) is grpc.aio.EOF


async def test_a_watch_goes_on_while_new_connections_are_made(shared_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    async with EtcdClient(shared_etcd.config()) as client, asyncio.timeout(30):
        start = await written(client, keys, 0)
        async with aclosing(client.watch_prefix(keys.prefix, start, 2.0)) as changes:
            for number in (1, 2):
                pending = asyncio.ensure_future(anext(changes))
                await asyncio.sleep(0.1)
                client.use(shared_etcd.config())
                await written(client, keys, number)
                assert isinstance(await pending, Changes)
