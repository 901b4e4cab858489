"""An etcd that is too old is refused by name; one that does not tell its version is not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio
import pytest
from etcd3.etcdrpc import rpc_pb2

from hamgr.dcs import wire
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.errors import StoreRefused, StoreTooOld
from hamgr.dcs.ops import Txn
from hamgr.dcs.vintage import is_too_old
from tests.dcs.etcd_members import EtcdCluster

Serve = Callable[[str], Awaitable[EtcdConfig]]


@pytest.fixture
async def etcd_of() -> AsyncIterator[Serve]:
    """A server that answers every transaction, and says that it is etcd of that version (empty: it does not say)."""
    servers = []

    async def serve(version: str) -> EtcdConfig:
        async def transact(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return rpc_pb2.TxnResponse(succeeded=True).SerializeToString()

        async def status(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            if not version:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
            return rpc_pb2.StatusResponse(version=version).SerializeToString()

        server = grpc.aio.server()
        for service, methods in {"KV": {"Txn": transact}, "Maintenance": {"Status": status}}.items():
            handlers = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in methods.items()}
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"etcdserverpb.{service}", handlers),)
            )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return EtcdConfig(hosts=(f"127.0.0.1:{port}",))

    yield serve
    for server in servers:
        await server.stop(None)


async def test_etcd_that_is_too_old_is_refused_with_its_version(etcd_of: Serve) -> None:
    async with EtcdClient(await etcd_of("3.3.25")) as client:
        await client.txn(Txn())
        await client.connections._vintage._asking[client.connections.config.hosts[0]]
        with pytest.raises(StoreTooOld, match=r"3\.3\.25: hamgr needs 3\.4 or newer"):
            await client.txn(Txn())


@pytest.mark.parametrize("version", ["3.4.0", "3.10.1", "4.0.0", "", "unknown"])
async def test_etcd_that_is_not_known_to_be_too_old_is_used(etcd_of: Serve, version: str) -> None:
    async with EtcdClient(await etcd_of(version)) as client:
        await client.txn(Txn())
        await client.connections._vintage._asking[client.connections.config.hosts[0]]
        await client.txn(Txn())


async def test_the_installed_etcd_tells_its_version(shared_etcd: EtcdCluster) -> None:
    async with EtcdClient(shared_etcd.config()) as client:
        asking = wire.STATUS.bind(client.connections.channel(shared_etcd.hosts[0]))
        assert re.match(r"3\.\d+\.", (await asking(wire.StatusRequest(), timeout=10.0)).version)


def test_versions_are_compared_by_their_numbers() -> None:
    assert [is_too_old(version) for version in ("3.3.99", "2.3.8", "3.4", "3.10.0", "3.6.0-rc.1", "")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert issubclass(StoreTooOld, StoreRefused)
