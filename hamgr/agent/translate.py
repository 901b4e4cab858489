"""From settings to what each part wants to be told. No part but this one knows the settings' shape."""

from __future__ import annotations

import os
import ssl
import zlib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from hamgr.agent.front import Front
from hamgr.agent.peers import PeerAccess
from hamgr.api.config import ApiBroken, ApiConfig
from hamgr.core.cluster import Tags
from hamgr.core.policy import Policy
from hamgr.core.state import Myself
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.remembered import SUFFIX
from hamgr.guard.layout import read_boot_id
from hamgr.postgres.config import Credentials, LogicalSlot, LogicalSlots, ServerConfig, option_arguments
from hamgr.routing.haproxy import Balancer
from hamgr.routing.pgbouncer import Pool
from hamgr.routing.release import OwnServer
from hamgr.settings import (
    Address,
    DynamicSettings,
    HaproxyBalancer,
    Loaded,
    PgbouncerPool,
    Role,
    Settings,
    TagsSection,
    is_network,
)
from hamgr.version import VERSION


def myself(settings: Settings) -> Myself:
    """This member, as it announces itself."""
    scheme = "https" if settings.restapi.certfile else "http"
    return Myself(
        name=settings.name,
        conn_url=f"postgres://{settings.server_address}/postgres",
        api_url=f"{scheme}://{settings.rest_address}/patroni",
        version=VERSION,
        tags=tags_of(settings.tags),
        routes=front(settings).routes,
    )


def front(settings: Settings) -> Front:
    """Pools and load balancers, and how a route to a primary is checked."""
    superuser, address = _credentials(settings.postgresql.authentication.superuser), settings.server_address
    login = {
        "user": superuser.username,
        "password": superuser.password or None,
        "dbname": "postgres",
        "application_name": "hamgr",
        **superuser.options,
    }
    own = OwnServer(address.host, address.port, {key: value for key, value in login.items() if value is not None})
    return Front(tuple(map(_pool, settings.pgbouncer)), tuple(map(_balancer, settings.haproxy)), own)


def _pool(section: PgbouncerPool) -> Pool:
    role = _credentials(section)
    key_password = {"sslpassword": _plain(section.sslpassword)} if section.sslpassword is not None else {}
    return Pool(
        host=section.host,
        port=section.port,
        username=role.username,
        password=role.password,
        options={**role.options, **key_password},
        databases=section.databases,
        pause_timeout_s=section.pause_timeout,
        target_file=_path(section.target_file),
        target_options=section.target_options,
    )


def _balancer(section: HaproxyBalancer) -> Balancer:
    at = section.socket
    if isinstance(at, Address):
        return Balancer(section.backend, host=at.host, port=at.port)
    return Balancer(section.backend, path=at)


def tags_of(section: TagsSection) -> Tags:
    """What Patroni has and hamgr does not do shows among the tags of the operator's own."""
    shown = {name: value for name in ("replicatefrom", "nostream") if (value := getattr(section, name))}
    return Tags(
        nofailover=section.nofailover,
        noloadbalance=section.noloadbalance,
        clonefrom=section.clonefrom,
        nosync=section.nosync,
        failover_priority=1 if section.failover_priority is None else section.failover_priority,
        sync_priority=1 if section.sync_priority is None else section.sync_priority,
        extra={**shown, **(section.model_extra or {})},
    )


def etcd_config(settings: Settings, policy: Policy) -> EtcdConfig:
    """How etcd is reached. The member's name chooses whom to ask first: else all members would ask the same one."""
    section = settings.etcd3
    hosts = tuple(str(address) for address in section.endpoints)
    first = zlib.crc32(settings.name.encode()) % len(hosts) if hosts else 0
    return EtcdConfig(
        hosts=(*hosts[first:], *hosts[:first]),
        protocol="https" if section.is_tls else "http",
        username=section.username,
        password=_plain(section.password),
        cacert=section.cacert,
        cert=section.cert,
        key=section.key,
        timeout_s=policy.retry_timeout_s,
    )


def server_config(settings: Settings, dynamic: DynamicSettings) -> ServerConfig:
    """The local server. Parameters of the member's file win over the cluster's."""
    section = settings.postgresql
    roles = section.authentication
    address = settings.server_address
    return ServerConfig(
        name=settings.name,
        scope=settings.scope,
        data_dir=Path(section.data_dir),
        superuser=_credentials(roles.superuser),
        replication=_credentials(roles.replication),
        rewind=_credentials(roles.rewind) if roles.rewind.username else None,
        bin_dir=Path(section.bin_dir) if section.bin_dir else None,
        listen_hosts=section.listen.hosts,
        port=section.listen.port,
        connect_host=address.host,
        use_unix_socket=section.use_unix_socket,
        parameters=parameters_of(settings, dynamic),
        pg_hba=hba_of(settings, dynamic),
        pg_ident=section.pg_ident or None,
        initdb_options=option_arguments(settings.bootstrap.initdb),
        basebackup_options=option_arguments(section.basebackup),
        passfile=Path(section.pgpass) if section.pgpass else None,
        use_slots=dynamic.postgresql.use_slots,
        member_slots_ttl_s=dynamic.member_slots_ttl,
        logical=logical_slots(dynamic),
    )


def logical_slots(dynamic: DynamicSettings) -> LogicalSlots:
    declared = {name: LogicalSlot(slot.database, slot.plugin) for name, slot in dynamic.logical_slots.items()}
    return LogicalSlots(declared, dynamic.syncs_slots)


def parameters_of(settings: Settings, dynamic: DynamicSettings) -> dict[str, str]:
    return {**dynamic.postgresql.parameters, **settings.postgresql.parameters}


def hba_of(settings: Settings, dynamic: DynamicSettings) -> tuple[str, ...] | None:
    return settings.postgresql.pg_hba or dynamic.postgresql.pg_hba or settings.bootstrap.pg_hba or None


def api_config(settings: Settings) -> ApiConfig:
    """How the REST server listens and whom it lets change things."""
    section = settings.restapi
    return ApiConfig(
        host=section.listen.hosts[0],
        port=section.listen.port,
        username=section.authentication.username,
        password=_plain(section.authentication.password),
        certfile=_path(section.certfile),
        keyfile=_path(section.keyfile),
        keyfile_password=_plain(section.keyfile_password),
        cafile=_path(section.cafile),
        verify_client=section.verify_client,
        allowlist=tuple(ip_network(entry, strict=False) for entry in section.allowlist if is_network(entry)),
        allowed_hosts=tuple(entry for entry in section.allowlist if not is_network(entry)),
        allowlist_include_members=section.allowlist_include_members,
        extra_headers=section.http_extra_headers,
    )


def peer_access(settings: Settings) -> PeerAccess:
    """How this member calls the others' REST: by `ctl` where that is set, else as its own `restapi` is called.

    Raises ApiBroken naming the certificate that cannot be used.
    """
    ctl, restapi = settings.ctl, settings.restapi
    login = ctl.authentication if ctl.authentication.username else restapi.authentication
    certfile, keyfile = (
        (ctl.certfile, ctl.keyfile) if ctl.certfile else (restapi.certfile, restapi.keyfile or restapi.certfile)
    )
    secret = "" if ctl.certfile else _plain(restapi.keyfile_password)
    using = cafile = ctl.cacert or restapi.cafile
    try:
        tls = ssl.create_default_context(cafile=cafile or None)
        if certfile:
            using = certfile
            tls.load_cert_chain(certfile, keyfile or None, lambda: secret)
    except OSError as problem:
        raise ApiBroken(f"cannot use {using} for calls to other members: {problem}") from problem
    if ctl.insecure:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return PeerAccess(login.username, _plain(login.password), tls)


def memory_path(settings: Settings) -> Path:
    """Where this member keeps what it knows of the cluster: beside the data directory, which may be thrown away."""
    data_dir = Path(settings.postgresql.data_dir)
    return data_dir.with_name(data_dir.name + SUFFIX)


def beginning(settings: Settings) -> Mapping[str, Any]:
    """What the flight recorder notes of an agent that begins."""
    high, low = read_boot_id()
    return {
        "scope": settings.scope,
        "member": settings.name,
        "version": VERSION,
        "pid": os.getpid(),
        "boot": f"{high:016x}{low:016x}",
    }


def seed_of(loaded: Loaded) -> Mapping[str, Any]:
    """What the first member enters as dynamic configuration: `bootstrap.dcs`, the timings spelled out."""
    policy = loaded.seed.policy()
    timings = {
        "ttl": _number(policy.ttl_s),
        "loop_wait": _number(policy.loop_wait_s),
        "retry_timeout": _number(policy.retry_timeout_s),
        "maximum_lag_on_failover": policy.maximum_lag_on_failover_bytes,
    }
    return {**timings, **loaded.settings.bootstrap.dcs}


def _number(seconds: float) -> float | int:
    return int(seconds) if seconds == int(seconds) else seconds


def _credentials(role: Role) -> Credentials:
    """Without the key's password: what leads to other servers stands in files and in arguments of programs."""
    options = {
        key: value for key in ("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl") if (value := getattr(role, key))
    }
    return Credentials(role.username, _plain(role.password), options)


def _plain(secret: Any) -> str:
    return secret.get_secret_value() if secret is not None else ""


def _path(text: str) -> Path | None:
    return Path(text) if text else None
