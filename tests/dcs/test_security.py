"""User and password, tokens, TLS."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from etcd3.etcdrpc import auth_pb2, rpc_pb2, rpc_pb2_grpc

from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.errors import StoreRefused, StoreUnavailable
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.lease import RenewalConnection
from hamgr.dcs.ops import Changes, Interrupted, Put, Txn
from tests.dcs.etcd_members import EtcdCluster, answers, started, wait_until

PASSWORD = "open sesame"


def enable_authentication(host: str) -> None:
    """Users root (all) and agent (all below /service/)."""
    with grpc.insecure_channel(host) as channel:
        auth = rpc_pb2_grpc.AuthStub(channel)
        for user, role in (("root", "root"), ("agent", "agent")):
            auth.UserAdd(rpc_pb2.AuthUserAddRequest(name=user, password=PASSWORD))
            auth.RoleAdd(rpc_pb2.AuthRoleAddRequest(name=role))
            auth.UserGrantRole(rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role))
        all_below = auth_pb2.Permission(
            permType=auth_pb2.Permission.READWRITE, key=b"/service/", range_end=b"/service0"
        )
        auth.RoleGrantPermission(rpc_pb2.AuthRoleGrantPermissionRequest(name="agent", perm=all_below))
        auth.AuthEnable(rpc_pb2.AuthEnableRequest())


@pytest.fixture(scope="module")
def guarded_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One member that wants a user."""
    cluster = started(EtcdCluster.of(1, tmp_path_factory.mktemp("etcd")))
    enable_authentication(cluster.hosts[0])
    yield cluster
    cluster.kill()


@pytest.fixture
async def client(guarded_etcd: EtcdCluster) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(guarded_etcd.config(username="agent", password=PASSWORD)) as client:
        yield client


async def test_user_and_password_open_the_store(client: EtcdClient, keys: ScopeKeys) -> None:
    assert (await EtcdStore(client, keys).put_config({}, 0)).is_done


async def test_an_etcd_that_wants_a_user_tells_its_version_or_is_new_enough(guarded_etcd: EtcdCluster) -> None:
    """Late releases of 3.5 want a user even for that; all before tell anybody."""
    with grpc.insecure_channel(guarded_etcd.hosts[0]) as channel:
        asking = rpc_pb2_grpc.MaintenanceStub(channel).Status.future(rpc_pb2.StatusRequest(), timeout=10.0)
        if asking.exception() is not None:
            assert "user name is empty" in asking.details()
        else:
            assert re.match(r"3\.\d+\.", asking.result().version)


async def test_a_stale_token_is_replaced(client: EtcdClient, keys: ScopeKeys) -> None:
    store = EtcdStore(client, keys)
    await store.read()
    client.connections._token = "stale.1"
    assert (await store.put_config({}, 0)).is_done
    client.connections._token = "stale.2"
    await store.read()


async def test_a_watch_with_a_stale_token_authenticates_afresh(client: EtcdClient, keys: ScopeKeys) -> None:
    store = EtcdStore(client, keys)
    view = await store.read()
    client.connections._token = "stale.1"
    async with aclosing(client.watch_prefix(keys.prefix, view.revision, 2.0)) as changes, asyncio.timeout(20):
        assert isinstance(await anext(changes), Interrupted)
        await store.put_config({}, 0)
        while not isinstance(change := await anext(changes), Changes):
            assert isinstance(change, Interrupted)


async def test_a_renewal_with_a_stale_token_authenticates_afresh(
    client: EtcdClient, guarded_etcd: EtcdCluster, keys: ScopeKeys
) -> None:
    lease_id = (await client.grant_lease(30)).lease_id
    connection = RenewalConnection(client.connections.config, keys)
    await asyncio.to_thread(connection.renew, lease_id, 5.0)
    connection._token = "stale.1"
    await asyncio.to_thread(connection.renew, lease_id, 5.0)
    connection.close()


@pytest.mark.parametrize("user", [{}, {"username": "agent", "password": "wrong " + PASSWORD}])
async def test_no_or_a_wrong_password_is_refused_and_never_shown(
    guarded_etcd: EtcdCluster, keys: ScopeKeys, user: dict[str, str]
) -> None:
    config = guarded_etcd.config(**user)
    async with EtcdClient(config) as stranger:
        with pytest.raises(StoreRefused) as refusal:
            await EtcdStore(stranger, keys).read()
    assert PASSWORD not in str(refusal.value) + repr(config)


async def test_a_key_without_permission_is_refused(client: EtcdClient) -> None:
    with pytest.raises(StoreRefused):
        await client.txn(Txn(then=(Put("/elsewhere", "x"),)))


async def test_a_user_does_no_harm_where_authentication_is_off(shared_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    config = shared_etcd.config(username="agent", password=PASSWORD)
    async with EtcdClient(config) as client:
        assert (await EtcdStore(client, keys).put_config({}, 0)).is_done
    connection = RenewalConnection(config, keys)
    await asyncio.to_thread(connection.read, 5.0)
    connection.close()


def make_certificate(directory: Path) -> tuple[str, str]:
    """A certificate that signs itself, for 127.0.0.1, and its key."""
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=hamgr"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def tls_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EtcdCluster, str, str]]:
    """One member that wants a client's certificate; the certificate and the key that everybody uses."""
    directory = tmp_path_factory.mktemp("etcd")
    cert, key = make_certificate(directory)
    options = ["--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", cert]
    cluster = EtcdCluster.of(1, directory, scheme="https", options=options).start()
    credentials = grpc.ssl_channel_credentials(*(Path(path).read_bytes() for path in (cert, key, cert)))
    wait_until(lambda: answers(cluster.hosts[0], credentials))
    yield cluster, cert, key
    cluster.kill()


async def test_tls_with_a_client_certificate_opens_the_store(
    tls_etcd: tuple[EtcdCluster, str, str], keys: ScopeKeys
) -> None:
    cluster, cert, key = tls_etcd
    config = cluster.config(protocol="https", cacert=cert, cert=cert, key=key)
    async with EtcdClient(config) as client:
        assert (await EtcdStore(client, keys).put_config({}, 0)).is_done
        lease_id = (await client.grant_lease(30)).lease_id
    connection = RenewalConnection(config, keys)
    assert (await asyncio.to_thread(connection.renew, lease_id, 5.0)).granted_ttl_s == 30
    connection.close()


async def test_a_server_that_no_authority_vouches_for_is_not_talked_to(
    tls_etcd: tuple[EtcdCluster, str, str], keys: ScopeKeys, tmp_path: Path
) -> None:
    cluster, _, _ = tls_etcd
    cert, key = make_certificate(tmp_path)
    async with EtcdClient(cluster.config(protocol="https", cacert=cert, cert=cert, key=key, timeout_s=1.0)) as client:
        with pytest.raises(StoreUnavailable):
            await EtcdStore(client, keys).read()


async def test_a_certificate_file_that_is_missing_is_named(keys: ScopeKeys, shared_etcd: EtcdCluster) -> None:
    async with EtcdClient(shared_etcd.config(protocol="https", cacert="/nowhere/ca.pem")) as client:
        with pytest.raises(StoreRefused, match=r"/nowhere/ca\.pem"):
            await EtcdStore(client, keys).read()


async def test_a_new_password_is_in_force_without_a_new_client(guarded_etcd: EtcdCluster, keys: ScopeKeys) -> None:
    wrong = guarded_etcd.config(username="agent", password="former")
    right = guarded_etcd.config(username="agent", password=PASSWORD)
    async with EtcdClient(wrong) as client:
        with pytest.raises(StoreRefused):
            await EtcdStore(client, keys).read()
        client.use(right)
        await EtcdStore(client, keys).read()
    connection = RenewalConnection(wrong, keys)
    with pytest.raises(StoreRefused):
        await asyncio.to_thread(connection.read, 5.0)
    connection.use(right)
    await asyncio.to_thread(connection.read, 5.0)
    connection.close()


def test_what_a_certificate_file_holds_tells_whether_connections_are_to_be_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("one")
    config = EtcdConfig(("a:1",), protocol="https", cacert=str(file))
    before = config.secrets()
    assert before == config.secrets()
    file.write_text("two")
    assert before != config.secrets()
