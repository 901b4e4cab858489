"""What this package must be told about the server it looks after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hamgr.postgres.errors import ServerBroken

Value = str | int | float | bool | None
DEBIAN_ROOT = Path("/usr/lib/postgresql")
DEFAULT_SOCKET_DIR = Path("/var/run/postgresql")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A role of PostgreSQL. An empty password means that the server trusts us by other means (peer, certificate)."""

    username: str
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    """Further libpq options without secrets: sslmode, sslcert, sslkey, sslrootcert, ..."""


@dataclass(frozen=True, slots=True)
class LogicalSlot:
    """A logical slot as it is declared: in which database, decoded by which output plugin."""

    database: str
    plugin: str


@dataclass(frozen=True, slots=True)
class LogicalSlots:
    """What is kept of logical slots. Without effect before PostgreSQL 17."""

    declared: Mapping[str, LogicalSlot] = field(default_factory=dict)
    are_synced: bool = False
    """Replicas copy the primary's failover slots."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of one local server; the agent makes it from the file and the dynamic configuration."""

    name: str
    scope: str
    data_dir: Path
    superuser: Credentials
    replication: Credentials
    rewind: Credentials | None = None
    """None: pg_rewind connects as the superuser."""
    bin_dir: Path | None = None
    """None: found by `find_bin_dir`."""
    config_dir: Path | None = None
    """Where postgresql.conf is; None: in the data directory."""
    listen_hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 5432
    connect_host: str = "127.0.0.1"
    socket_dir: Path | None = None
    """None: what `unix_socket_directories` says, else Debian's directory, else /tmp."""
    use_unix_socket: bool = True
    parameters: Mapping[str, Value] = field(default_factory=dict)
    pg_hba: tuple[str, ...] | None = None
    """None: the file stays as it is; a new cluster gets lines that ask for SCRAM passwords."""
    pg_ident: tuple[str, ...] | None = None
    initdb_options: tuple[str, ...] = ()
    basebackup_options: tuple[str, ...] = ()
    passfile: Path | None = None
    """None: `<data_dir>.pgpass`."""
    use_slots: bool = True
    member_slots_ttl_s: float = 1800.0
    logical: LogicalSlots = LogicalSlots()

    @property
    def settings_dir(self) -> Path:
        return self.config_dir or self.data_dir

    @property
    def passfile_path(self) -> Path:
        return self.passfile or self.data_dir.with_name(self.data_dir.name + ".pgpass")

    @property
    def rewind_role(self) -> Credentials:
        return self.rewind or self.superuser

    @property
    def sockets(self) -> Path:
        """The directory of the socket that we connect through."""
        if self.socket_dir is not None:
            return self.socket_dir
        if listed := self._listed_sockets[0]:
            return Path(listed)
        return DEFAULT_SOCKET_DIR if os.access(DEFAULT_SOCKET_DIR, os.W_OK) else Path("/tmp")

    @property
    def socket_directories(self) -> str:
        """All directories in which the server makes a socket: that one, and what else is listed."""
        return ",".join(dict.fromkeys((str(self.sockets), *filter(None, self._listed_sockets))))

    @property
    def _listed_sockets(self) -> list[str]:
        return [each.strip() for each in str(self.parameters.get("unix_socket_directories") or "").split(",")]

    @property
    def local_host(self) -> str:
        """libpq's `host` for connections to our own server."""
        if self.use_unix_socket:
            return str(self.sockets)
        wildcard = self.listen_hosts and self.listen_hosts[0] in ("*", "0.0.0.0", "::")
        return "localhost" if wildcard or not self.listen_hosts else self.listen_hosts[0]


def option_arguments(options: Iterable[str | Mapping[str, Value]]) -> tuple[str, ...]:
    """Program arguments from Patroni's list of options: `data-checksums` or `encoding: UTF8` each."""
    arguments: list[str] = []
    for option in options:
        if isinstance(option, str):
            arguments.append(f"--{option.lstrip('-')}")
        else:
            arguments.extend(f"--{key}={value}" for key, value in option.items())
    return tuple(arguments)


def find_bin_dir(data_dir: Path) -> Path:
    """Where the server's programs are: of the data directory's own major version if it has one, else the newest.

    Looks below /usr/lib/postgresql, then in PATH. Raises ServerBroken if there are none. Reads the disk.
    """
    try:
        wanted = (data_dir / "PG_VERSION").read_text().strip()
    except OSError:
        wanted = ""
    if wanted and (DEBIAN_ROOT / wanted / "bin" / "postgres").exists():
        return DEBIAN_ROOT / wanted / "bin"
    installed = [path.parent for path in DEBIAN_ROOT.glob("*/bin/postgres") if path.parts[-3].isdigit()]
    if installed:
        return max(installed, key=lambda path: int(path.parts[-2]))
    in_path = shutil.which("postgres")
    if in_path is None:
        raise ServerBroken("no PostgreSQL programs found", hint="set postgresql.bin_dir")
    return Path(os.path.realpath(in_path)).parent


def with_logins_of(other: ServerConfig, config: ServerConfig) -> ServerConfig:
    """`config` with the roles and passwords by which `other` connects."""
    return replace(config, superuser=other.superuser, replication=other.replication, rewind=other.rewind)
