"""Options of a member's PostgreSQL server."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr

from hamgr.settings.kinds import (
    AbsolutePath,
    DataDirectory,
    Flags,
    Lines,
    Listen,
    Parameters,
    ServerAddress,
    ServerListen,
)
from hamgr.settings.section import SAME, Section, option

SslMode = Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


def _conninfo_word(value: str) -> str:
    if any(ord(char) < 32 for char in value):
        raise ValueError("holds a control character")
    return value


def _password(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        _conninfo_word(value.get_secret_value())
    return value


Plain = Annotated[str, AfterValidator(_conninfo_word)]
Secret = Annotated[SecretStr | None, AfterValidator(_password)]


class Role(Section):
    """A role that hamgr connects as. The first member creates it."""

    username: Plain = option("", "Name of the role.")
    password: Secret = option(None, "Its password; not needed with a client certificate or a passfile.")
    sslmode: SslMode = option("", "libpq's sslmode; empty: libpq's default.")
    sslcert: AbsolutePath = option("", "Client certificate.")
    sslkey: AbsolutePath = option("", "Key of the client certificate.")
    sslpassword: Secret = option(
        None, "Password of that key. Only `pgbouncer` can be given one: the server's roles need a key without."
    )
    sslrootcert: AbsolutePath = option("", "CA certificates that the server's is checked with.")
    sslcrl: AbsolutePath = option("", "Certificate revocation list.")

    @property
    def needs_password(self) -> bool:
        """True if nothing here says how the role proves who it is."""
        return self.password is None and not self.sslcert


class Superuser(Role):
    """The superuser: hamgr's own connection, and initdb's role."""

    env_prefix: ClassVar[str] = "SUPERUSER_"

    username: Plain = option("postgres", "Name of the role.", sample="postgres", min_length=1)
    password: Secret = option(
        None,
        "Its password; not needed with a client certificate or a passfile.",
        sample="change-me-1",
    )


class Replication(Role):
    """The role that replicas stream and clone as."""

    env_prefix: ClassVar[str] = "REPLICATION_"

    username: Plain = option("replicator", "Name of the role.", sample="replicator", min_length=1)
    password: Secret = option(
        None,
        "Its password; not needed with a client certificate or a passfile.",
        sample="change-me-2",
    )


class Rewind(Role):
    """The role that pg_rewind reads the new leader as. Empty username: the superuser."""

    env_prefix: ClassVar[str] = "REWIND_"

    username: Plain = option("", "Name of the role; empty: the superuser rewinds.")
    password: Secret = option(None, "Its password.")


class ServerAuthentication(Section):
    """Roles that hamgr uses."""

    superuser: Superuser = Field(default=Superuser())
    replication: Replication = Field(default=Replication())
    rewind: Rewind = Field(default=Rewind())


class PostgresqlSection(Section):
    """The PostgreSQL server of this member."""

    listen: ServerListen = option(
        Listen(("*",), 5432),
        "Local addresses, comma separated, and one port at the end; `*` for all.",
        env="POSTGRESQL_LISTEN",
        sample="0.0.0.0:5432",
    )
    connect_address: ServerAddress | None = option(
        None,
        "Address at which clients and members reach this server. Needed where `listen` is a wildcard.",
        env="POSTGRESQL_CONNECT_ADDRESS",
        sample="10.0.0.11:5432",
    )
    proxy_address: ServerAddress | None = option(
        None,
        "Address of a connection pool before this server, published as `proxy_url`.",
        env="POSTGRESQL_PROXY_ADDRESS",
    )
    data_dir: DataDirectory = option(
        ...,
        "Data directory. An empty or missing one is made; a foreign one is never touched.",
        env="POSTGRESQL_DATA_DIR",
        sample="/var/lib/postgresql/hamgr/data",
    )
    bin_dir: AbsolutePath = option(
        "",
        "Directory of PostgreSQL's programs; empty: found in PATH and the distributions' places.",
        env="POSTGRESQL_BIN_DIR",
    )
    pgpass: AbsolutePath = option(
        "",
        "Passfile that hamgr keeps (mode 0600); empty: beside the data directory.",
        env="POSTGRESQL_PGPASS",
    )
    authentication: ServerAuthentication = Field(default=ServerAuthentication())
    parameters: Parameters = option({}, "PostgreSQL parameters of this member; they win over the cluster's.")
    pg_hba: Lines = option(
        (),
        "Lines of pg_hba.conf; they win over the cluster's. Without any hamgr writes lines for its own roles.",
        sample=[
            "local all all peer",
            "host all all 10.0.0.0/24 scram-sha-256",
            "host replication replicator 10.0.0.0/24 scram-sha-256",
        ],
    )
    pg_ident: Lines = option((), "Lines of pg_ident.conf.")
    use_unix_socket: bool = option(
        True,
        "hamgr's own connections use the Unix socket (parameter unix_socket_directories).",
        origin="Patroni: false",
    )
    create_replica_methods: tuple[str, ...] = option(
        ("basebackup",), "How a replica is made; only `basebackup` has an effect.", origin=SAME
    )
    basebackup: Flags = option((), "Further options of pg_basebackup, without dashes.")
