"""The option table: every key of a member's file, its type, default, bounds and meaning.

Parser, validation, reference page and sample file are all made from it. Key names are Patroni's where the meaning is.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator

from hamgr.core.policy import agent_timeout_of
from hamgr.settings.kinds import (
    AbsolutePath,
    Address,
    BackendName,
    Databases,
    EtcdHost,
    EtcdHosts,
    Flags,
    Headers,
    Lines,
    Listen,
    Networks,
    OneHost,
    RecordingSize,
    RestAddress,
    RestListen,
    RuntimeSocket,
    Seconds,
    Word,
    parse_host,
    parse_scalar,
)
from hamgr.settings.postgres import Plain, PostgresqlSection, Role, Secret
from hamgr.settings.section import OWN, Section, option

RESERVED_NAMES = ("__patroni_strict_sync_replica_placeholder__",)


def _member_name(value: str) -> str:
    if not 1 <= len(value) <= 63 or any(not "!" <= char <= "~" or char in "/\\'\"" for char in value):
        raise ValueError("must be 1 to 63 printable ASCII characters, no blank, slash, backslash or quote")
    if value in RESERVED_NAMES:
        raise ValueError("is a reserved name")
    return value


def _namespace(value: str) -> str:
    parts = [part for part in value.split("/") if part]
    if any(not "!" <= char <= "~" for char in value):
        raise ValueError("must be a path of printable ASCII characters without blanks")
    return "/" + "".join(f"{part}/" for part in parts)


def _url(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or parts.path not in ("", "/")):
        raise ValueError("is not http(s)://host:port")
    if "@" in parts.netloc:
        raise ValueError("holds user and password: write them as username and password of this section")
    if value:
        parse_host(parts.netloc)
    return value


def _level(value: str) -> str:
    level = value.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise ValueError("is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return level


class BasicAuthentication(Section):
    """User and password for requests that change something. The same on all members, who ask each other with it."""

    username: str = option("", "User of HTTP basic authentication.", env="RESTAPI_USERNAME", sample="admin")
    password: Secret = option(None, "Its password.", env="RESTAPI_PASSWORD", sample="change-me-3")


class CtlAuthentication(Section):
    """What the command line says to `restapi.authentication`; empty: the same user and password."""

    env_prefix: ClassVar[str] = "CTL_"

    username: str = option("", "User of HTTP basic authentication.")
    password: Secret = option(None, "Its password.")


class RestapiSection(Section):
    """The REST server: health checks of load balancers, metrics, orders, calls of other members."""

    listen: RestListen = option(
        Listen(("*",), 8008), "Local address and port.", env="RESTAPI_LISTEN", sample="0.0.0.0:8008"
    )
    connect_address: RestAddress | None = option(
        None,
        "Address at which members reach this agent; without one, the host of `postgresql.connect_address`.",
        env="RESTAPI_CONNECT_ADDRESS",
        sample="10.0.0.11:8008",
    )
    authentication: BasicAuthentication = Field(default=BasicAuthentication())
    certfile: AbsolutePath = option(
        "", "Server certificate (PEM); with one the API speaks HTTPS.", env="RESTAPI_CERTFILE"
    )
    keyfile: AbsolutePath = option("", "Key of the certificate; empty: in `certfile`.", env="RESTAPI_KEYFILE")
    keyfile_password: Secret = option(None, "Password of the key.", env="RESTAPI_KEYFILE_PASSWORD")
    cafile: AbsolutePath = option(
        "", "CA certificates that client certificates are checked with.", env="RESTAPI_CAFILE"
    )
    verify_client: Literal["none", "optional", "required"] = option(
        "none",
        "`required`: every request needs a client certificate; `optional`: only those that change something.",
        env="RESTAPI_VERIFY_CLIENT",
    )
    allowlist: Networks = option(
        (),
        "Addresses, networks and names of hosts that may send requests that change something.",
        env="RESTAPI_ALLOWLIST",
    )
    allowlist_include_members: bool = option(False, "Members may, too.", env="RESTAPI_ALLOWLIST_INCLUDE_MEMBERS")
    http_extra_headers: Headers = option({}, "Headers added to every answer.")


class EtcdSection(Section):
    """etcd, protocol 3. The section may also be called `etcd`."""

    host: EtcdHost | None = option(None, "One endpoint, where there is only one.", env="ETCD3_HOST")
    hosts: EtcdHosts = option(
        (),
        "Endpoints, as a list or comma separated.",
        env="ETCD3_HOSTS",
        sample=["10.0.0.11:2379", "10.0.0.12:2379", "10.0.0.13:2379"],
    )
    url: Annotated[str, AfterValidator(_url)] = option("", "One endpoint as `http(s)://host:port`.", env="ETCD3_URL")
    protocol: Literal["http", "https"] = option("http", "Protocol of the endpoints.", env="ETCD3_PROTOCOL")
    username: str = option("", "User of etcd.", env="ETCD3_USERNAME")
    password: Secret = option(None, "Its password.", env="ETCD3_PASSWORD")
    cacert: AbsolutePath = option("", "CA certificates that the endpoints' are checked with.", env="ETCD3_CACERT")
    cert: AbsolutePath = option("", "Client certificate.", env="ETCD3_CERT")
    key: AbsolutePath = option("", "Key of the client certificate.", env="ETCD3_KEY")

    @property
    def endpoints(self) -> tuple[Address, ...]:
        """Every endpoint named, once, in the order written."""
        of_url = (parse_host(urlsplit(self.url).netloc),) if self.url else ()
        return tuple(dict.fromkeys((*((self.host,) if self.host else ()), *of_url, *self.hosts)))

    @property
    def is_tls(self) -> bool:
        """True if the endpoints speak TLS."""
        return self.protocol == "https" or self.url.startswith("https:")


class BootstrapSection(Section):
    """What the first member makes the cluster with. Without effect once the cluster exists."""

    dcs: dict[str, Any] = option({}, "Seed of the dynamic configuration, see there.")
    initdb: Flags = option((), "Options of initdb, without dashes.", sample=[{"encoding": "UTF8"}, "data-checksums"])
    pg_hba: Lines = option((), "Lines of pg_hba.conf, where neither `postgresql.pg_hba` nor the cluster has any.")


class TagsSection(Section):
    """What this member may be. Further keys with plain values are tags of your own."""

    model_config = ConfigDict(extra="allow")
    takes_any_key: ClassVar[bool] = True
    __pydantic_extra__: dict[str, Annotated[str | int | float | bool, PlainValidator(parse_scalar)]] = Field(init=False)

    nofailover: bool = option(False, "Never becomes leader.", sample=False)
    noloadbalance: bool = option(False, "`/replica` says 503.", sample=False)
    clonefrom: bool = option(False, "Preferred source for new replicas.", sample=False)
    nosync: bool = option(False, "Never a synchronous standby.", sample=False)
    failover_priority: int | None = option(
        None, "Of equally advanced members the one with the highest leads; 0: never leads.", shown="1", ge=0
    )
    sync_priority: int | None = option(None, "As failover_priority, for the synchronous set.", shown="1", ge=0)
    replicatefrom: str = option("", "Shown, without effect: every replica streams from the leader.")
    nostream: bool = option(False, "Shown, without effect: every replica streams.")


class WatchdogSection(Section):
    """A Linux watchdog device as a further layer below the guard."""

    mode: Annotated[Literal["off", "automatic", "required"], Word] = option(
        "off", "`required`: no leader without the device.", origin="Patroni: automatic", sample="off"
    )
    device: AbsolutePath = option("/dev/watchdog", "The device.")
    safety_margin: int = option(-1, "Seconds before the lease ends; -1: half of ttl.", origin="Patroni: 5", ge=-1)

    def timeout_for(self, ttl_s: float) -> int:
        """Whole seconds without a sign of life after which the device resets the host; below 1 it cannot be used."""
        return int(ttl_s - (ttl_s / 2 if self.safety_margin < 0 else self.safety_margin))


class LogSection(Section):
    """The log, written to standard error."""

    level: Annotated[str, AfterValidator(_level)] = option("INFO", "Least level that is written.", env="LOG_LEVEL")
    format: str = option("text", "`text` or `json`.", origin="Patroni: a Python format")
    type: Literal["", "plain", "json"] = option("", "Patroni's name for the format: `plain` is text.", env="LOG_TYPE")

    @property
    def is_json(self) -> bool:
        return self.type == "json" or self.format == "json"


class RecorderSection(Section):
    """The flight recorder that `hamgr explain --at TIME` reads: two files beside the data directory."""

    size: RecordingSize = option(
        4 << 20,
        "Bytes that both files take at most; 0: nothing is recorded. Read when an agent starts.",
        origin=OWN,
        shown="4MB",
    )


class CtlSection(Section):
    """How the command line talks to the REST servers."""

    env_prefix: ClassVar[str] = "CTL_"

    insecure: bool = option(False, "Certificates are not checked.")
    cacert: AbsolutePath = option("", "CA certificates; empty: `restapi.cafile`.")
    certfile: AbsolutePath = option("", "Client certificate.")
    keyfile: AbsolutePath = option("", "Key of the client certificate.")
    authentication: CtlAuthentication = Field(default=CtlAuthentication())


class GuardSection(Section):
    """The guard: parent of agent and server on each host."""

    runtime_dir: AbsolutePath = option(
        "", "Directory of the guard's page and socket, on tmpfs.", origin=OWN, shown="/run/hamgr/SCOPE-NAME"
    )
    agent_timeout: Seconds | None = option(
        None,
        "An agent without heartbeat for so long is killed and started again.",
        origin=OWN,
        shown="0.4 of ttl, at most 2 s",
        ge=0.2,
        le=3600,
    )
    stop_timeout: Seconds = option(
        30.0, "Bound of an orderly stop of agent and server on SIGTERM.", origin=OWN, ge=1, le=86400
    )

    def agent_timeout_for(self, ttl_s: float) -> float:
        """Seconds without heartbeat after which the agent is replaced: in time for the new one to renew."""
        return self.agent_timeout if self.agent_timeout is not None else agent_timeout_of(ttl_s)


class PgbouncerPool(Role):
    """A PgBouncer (pool mode transaction or statement) whose clients wait during a hand-over instead of losing their
    sessions. Whoever becomes the leader resumes it, so do not pause it by hand. Its `server_login_retry` should be 1.
    """

    host: OneHost = option("127.0.0.1", "Host or socket directory of its admin console.", origin=OWN)
    port: int = option(6432, "Its port.", origin=OWN, ge=1, le=65535)
    username: Plain = option(
        "pgbouncer",
        "One of its `admin_users`. Where the file does not say:",
        origin=OWN,
        env="PGBOUNCER_USERNAME",
        min_length=1,
    )
    password: Secret = option(None, "Its password. Where the file does not say:", origin=OWN, env="PGBOUNCER_PASSWORD")
    databases: Databases = option(
        (),
        "Databases of the pool that lead to the primary; empty: all. Needed where it has others that lead to replicas.",
        origin=OWN,
    )
    pause_timeout: Seconds = option(
        2.0,
        "How long its clients wait for running transactions to end. If that is too short, the hand-over goes on "
        "without it.",
        origin=OWN,
        gt=0,
        le=60,
    )
    target_file: AbsolutePath = option(
        "",
        "File on this host that pgbouncer.ini has a `%include` of: the agent here keeps the leader's address in it.",
        origin=OWN,
    )
    target_options: Plain = option(
        "", "What follows host and port there, as in pgbouncer.ini: `auth_user=… pool_size=…`.", origin=OWN
    )


class HaproxyBalancer(Section):
    """An HAProxy that is told at once who accepts writes, beside its own health checks. Its servers have the members'
    names.
    """

    socket: RuntimeSocket = option(
        ..., "Its `stats socket … level admin`: a path, or host:port.", origin=OWN, sample="/run/haproxy/admin.sock"
    )
    backend: BackendName = option("primary", "Its backend (or `listen` section) for writes.", origin=OWN)


class Settings(Section):
    """A member's file."""

    scope: Annotated[str, AfterValidator(_member_name)] = option(
        ..., "Name of the cluster, the same on all members.", env="SCOPE", sample="main"
    )
    namespace: Annotated[str, AfterValidator(_namespace)] = option(
        "/service/", "Where the cluster's keys stand in etcd.", env="NAMESPACE"
    )
    name: Annotated[str, AfterValidator(_member_name)] = option(
        ..., "Name of this member, its own within the cluster.", env="NAME", sample="db1"
    )
    restapi: RestapiSection = Field(default=RestapiSection())
    etcd3: EtcdSection = Field(default=EtcdSection())
    bootstrap: BootstrapSection = Field(default=BootstrapSection())
    postgresql: PostgresqlSection
    tags: TagsSection = Field(default=TagsSection())
    watchdog: WatchdogSection = Field(default=WatchdogSection())
    log: LogSection = Field(default=LogSection())
    recorder: RecorderSection = Field(default=RecorderSection())
    ctl: CtlSection = Field(default=CtlSection())
    guard: GuardSection = Field(default=GuardSection())
    pgbouncer: tuple[PgbouncerPool, ...] = option(
        (), "Pools whose clients wait during a hand-over; the same on all members, but for target files.", origin=OWN
    )
    haproxy: tuple[HaproxyBalancer, ...] = option(
        (), "Load balancers that are told at once who leads; the same on all members.", origin=OWN
    )

    @property
    def server_address(self) -> Address:
        """Where clients and members reach PostgreSQL. Raises ValueError if the file does not say (load checks)."""
        given = self.postgresql.connect_address
        return given or _specific(self.postgresql.listen, "postgresql.connect_address")

    @property
    def rest_address(self) -> Address:
        """Where members reach the REST server. Raises ValueError if the file does not say (load checks)."""
        listen = self.restapi.listen
        if self.restapi.connect_address is not None:
            return self.restapi.connect_address
        if listen.is_wildcard:
            return Address(self.server_address.host, listen.port)
        return _specific(listen, "restapi.connect_address")

    @property
    def runtime_dir(self) -> str:
        """Directory of the guard's page and socket."""
        return self.guard.runtime_dir or f"/run/hamgr/{self.scope}-{self.name}"


def _specific(listen: Listen, missing: str) -> Address:
    if listen.is_wildcard:
        raise ValueError(f"{missing} is missing")
    return Address(listen.hosts[0], listen.port)
