"""The server's configuration files: ours (`hamgr.conf`), included last from the user's postgresql.conf.

Order of precedence, lowest first: postgresql.conf, hamgr.conf (our defaults, then the configured parameters),
hamgr.upstream.conf, hamgr.sync.conf and hamgr.standbys.conf (what changes with the leader, with the synchronous set and
with the standbys that logical consumers wait for), postgresql.auto.conf (ALTER SYSTEM), command line.
Blocking: call through Disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from psycopg.conninfo import make_conninfo

from hamgr.core.actions import Upstream
from hamgr.core.slotnames import slot_name
from hamgr.postgres import files
from hamgr.postgres.config import Credentials, ServerConfig
from hamgr.postgres.errors import ServerRefused
from hamgr.postgres.sql import DATABASE
from hamgr.postgres.versions import Version

OURS = "hamgr.conf"
UPSTREAM = "hamgr.upstream.conf"
SYNC = "hamgr.sync.conf"
STANDBYS = "hamgr.standbys.conf"
INCLUDE = f"include '{OURS}'"
CONF_MODE = 0o600
RESERVED_CONNECTIONS = 6

DEFAULTS: Mapping[str, str] = {
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "wal_keep_size": "128MB",
    # For this agent's own sessions when clients have taken all others: kept, fresh, committing, checkpoint, sentry.
    "superuser_reserved_connections": str(RESERVED_CONNECTIONS),
    # After a refused connection a replica sleeps this long before it tries the new primary.
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_receiver_status_interval": "1s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "5",
    "tcp_user_timeout": "10s",
}
"""May be overridden by configured parameters. Times suit leases of seconds."""

SLOT_SYNC: Mapping[str, str] = {
    "wal_level": "logical",
    "hot_standby_feedback": "on",
    "sync_replication_slots": "on",
}
"""What a standby needs to copy failover slots, with a slot of its own on the primary and a database to ask in."""

RESERVED = frozenset(
    (
        "listen_addresses",
        "port",
        "cluster_name",
        "hot_standby",
        "wal_log_hints",
        "unix_socket_directories",
        "primary_conninfo",
        "primary_slot_name",
        "recovery_target_timeline",
        "config_file",
        "hba_file",
        "ident_file",
        "data_directory",
    )
)
"""Always set by us; a configured value is left out, but for the list of socket directories."""

SYNC_LINE = re.compile(r"^\s*synchronous_standby_names\s*=\s*'(.*)'\s*$", re.IGNORECASE)
RECOVERY_LINE = re.compile(r"^\s*(primary_conninfo|primary_slot_name|recovery_target\w*)\b", re.IGNORECASE)
PARAMETER_NAME = re.compile(r"^[A-Za-z_][\w.]*$")

SHARED_MEMORY_DEFAULTS: Mapping[str, int] = {
    "max_connections": 100,
    "max_worker_processes": 8,
    "max_wal_senders": 10,
    "max_prepared_transactions": 0,
    "max_locks_per_transaction": 64,
}
"""A standby refuses to start (or pauses) if one of these is smaller than it was on the primary."""


def fixed_arguments(config: ServerConfig) -> list[str]:
    """Command-line settings of the server: those that neither postgresql.conf nor ALTER SYSTEM may change."""
    fixed = {
        "listen_addresses": ",".join(config.listen_hosts),
        "port": str(config.port),
        "unix_socket_directories": config.socket_directories,
        "cluster_name": config.scope,
        "hot_standby": "on",
        "wal_log_hints": "on",
    }
    if config.config_dir is not None and config.config_dir != config.data_dir:
        fixed["config_file"] = str(config.config_dir / "postgresql.conf")
        fixed["hba_file"] = str(config.config_dir / "pg_hba.conf")
        fixed["ident_file"] = str(config.config_dir / "pg_ident.conf")
    return [word for name, value in fixed.items() for word in ("-c", f"{name}={value}")]


def rendered(config: ServerConfig, version: Version, floors: Mapping[str, int], *, may_sync: bool = True) -> str:
    """The text of hamgr.conf. `floors`: least values of the shared-memory parameters, from the control file.

    `may_sync`: as for `write`.
    """
    values: dict[str, str] = {**DEFAULTS, **version.parameters}
    if version.syncs_slots and config.logical.are_synced:
        values.update(SLOT_SYNC)
    values["recovery_target_timeline"] = "latest"
    for name, value in config.parameters.items():
        _check_name(name)
        if name not in RESERVED and value is not None:
            values[name] = as_text(value)
    if not may_sync or values["wal_level"] != "logical":
        values.pop("sync_replication_slots", None)
    for name, floor in floors.items():
        declared = values.get(name) or declared_value(config, name) or str(SHARED_MEMORY_DEFAULTS[name])
        if declared.isdigit() and int(declared) < floor:
            values[name] = str(floor)
    _leave_connections(config, values)
    lines = [f"{name} = {quoted(value)}" for name, value in sorted(values.items())]
    last = [f"include_if_exists '{name}'" for name in (UPSTREAM, SYNC, STANDBYS)]
    return "\n".join(["# Written by hamgr; changes here are overwritten.", *lines, *last, ""])


def _leave_connections(config: ServerConfig, values: dict[str, str]) -> None:
    """Our reserve is no more than a third of all connections: a server with fewer would not even start."""
    total = values.get("max_connections") or declared_value(config, "max_connections")
    if "superuser_reserved_connections" not in config.parameters and total.isdigit():
        values["superuser_reserved_connections"] = str(min(RESERVED_CONNECTIONS, int(total) // 3))


def write(config: ServerConfig, version: Version, floors: Mapping[str, int], *, may_sync: bool = True) -> bool:
    """All files are as configured; True if one of them changed.

    `may_sync` False leaves sync_replication_slots out: a standby that runs with a lower wal_level and is told to copy
    slots ends. Source: src/backend/replication/logical/slotsync.c, ValidateSlotSyncParams.
    """
    directory = config.settings_dir
    text = rendered(config, version, floors, may_sync=may_sync)
    changed = files.write_if_changed(directory / OURS, text, CONF_MODE)
    changed |= _include_ours(directory / "postgresql.conf")
    if config.pg_hba is not None:
        text = "\n".join([*own_hba_lines(config), *config.pg_hba, ""])
        changed |= files.write_if_changed(directory / "pg_hba.conf", text, CONF_MODE)
    if config.pg_ident is not None:
        changed |= files.write_if_changed(directory / "pg_ident.conf", "\n".join([*config.pg_ident, ""]), CONF_MODE)
    return changed


def write_initial_hba(config: ServerConfig) -> None:
    """pg_hba.conf of a new cluster lets the configured lines in, or SCRAM passwords where none are configured."""
    configured = config.pg_hba
    if configured is None:
        configured = (
            "local all all scram-sha-256",
            "host all all all scram-sha-256",
            f"host replication {quoted_role(config.replication.username)} all scram-sha-256",
        )
    text = "\n".join([*own_hba_lines(config), *configured, ""])
    files.write_if_changed(config.settings_dir / "pg_hba.conf", text, CONF_MODE)


def own_hba_lines(config: ServerConfig) -> list[str]:
    """First lines of pg_hba.conf: whatever follows, we reach our own server through its socket."""
    method = "scram-sha-256" if config.superuser.password else "peer"
    role = quoted_role(config.superuser.username)
    return [f"local {database} {role} {method}" for database in ("all", "replication")]


def write_upstream(config: ServerConfig, upstream: Upstream) -> bool:
    """The server streams from `upstream` once it reloads (or starts); True if that is a change.

    Lines of ALTER SYSTEM, pg_basebackup or pg_rewind for the same parameters are taken out of
    postgresql.auto.conf: they would win, and the replica would silently stream from elsewhere or not at all.
    """
    conninfo = primary_conninfo(config, upstream) if upstream.host else ""
    slot = slot_name(config.name) if config.use_slots and upstream.host else ""
    text = f"primary_conninfo = {quoted(conninfo)}\nprimary_slot_name = {quoted(slot)}\n"
    changed = files.write_if_changed(config.settings_dir / UPSTREAM, text, CONF_MODE)
    return disarm_auto_conf(config.data_dir) or changed


def write_standbys(config: ServerConfig, slots: Sequence[str]) -> bool:
    """Consumers of failover slots wait for the standbys of these physical slots once the server reloads (or starts).

    True if that is a change. A name that no slot has makes parallel queries fail (17.0 to 17.6): not for a standby,
    whose slots are not kept up.
    """
    path = config.settings_dir / STANDBYS
    if not slots:
        return files.remove(path)
    return files.write_if_changed(path, f"synchronized_standby_slots = {quoted(', '.join(slots))}\n", CONF_MODE)


def write_sync(config: ServerConfig, text: str | None) -> bool:
    """synchronous_standby_names is `text` once the server reloads, whatever is configured; True if that is a change.

    None: what is configured holds, ALTER SYSTEM included.
    """
    path = config.settings_dir / SYNC
    if text is None:
        return files.remove(path)
    changed = files.write_if_changed(path, f"synchronous_standby_names = {quoted(text)}\n", CONF_MODE)
    return disarm_auto_conf(config.data_dir, SYNC_LINE) or changed


def read_sync(config: ServerConfig) -> str | None:
    """What `write_sync` wrote last; None: nothing."""
    found = SYNC_LINE.match(files.read_text(config.settings_dir / SYNC) or "")
    return found[1].replace("''", "'").replace("\\\\", "\\") if found else None


def disarm_auto_conf(data_dir: Path, lines: re.Pattern[str] = RECOVERY_LINE) -> bool:
    """postgresql.auto.conf has none of those lines, which would win over what we write; True if it had."""
    path = data_dir / "postgresql.auto.conf"
    text = files.read_text(path)
    if text is None:
        return False
    kept = [line for line in text.splitlines(keepends=True) if not lines.match(line)]
    return files.write_if_changed(path, "".join(kept)) if len(kept) != len(text.splitlines()) else False


def primary_conninfo(config: ServerConfig, upstream: Upstream) -> str:
    """libpq's connection string for streaming: the password is in the passfile, failures show within seconds."""
    return remote_conninfo(
        config,
        upstream,
        config.replication,
        application_name=config.name,
        tcp_user_timeout="5000",
        # Not for streaming: the worker that copies failover slots asks by SQL.
        dbname=DATABASE,
    )


def remote_conninfo(config: ServerConfig, upstream: Upstream, role: Credentials, **more: str) -> str:
    """A connection string without secrets for `role` on another member."""
    fields: dict[str, str] = {
        "host": upstream.host,
        "port": str(upstream.port),
        "user": role.username,
        "passfile": str(config.passfile_path),
        "connect_timeout": "3",
        "keepalives_idle": "5",
        "keepalives_interval": "1",
        "keepalives_count": "5",
        # Saves a round trip per connection where Kerberos is compiled in but not used.
        "gssencmode": "disable",
        **role.options,
        **more,
    }
    return make_conninfo("", **fields)


def write_passfile(config: ServerConfig) -> bool:
    """The passfile holds the passwords that child programs and the server need for other members."""
    roles = (config.replication, config.rewind_role)
    return files.write_passfile(config.passfile_path, {role.username: role.password for role in roles})


def role_signal(config: ServerConfig, *, standby: bool) -> None:
    """The server starts as a standby, or out of recovery."""
    if standby:
        files.write_if_changed(config.data_dir / "standby.signal", "", CONF_MODE)
    else:
        files.remove(config.data_dir / "standby.signal")
    files.remove(config.data_dir / "recovery.signal")


def declared_value(config: ServerConfig, name: str) -> str:
    """What postgresql.conf says of a parameter, last line first; empty if nothing."""
    text = files.read_text(config.settings_dir / "postgresql.conf") or ""
    found = re.findall(rf"^\s*{name}\s*=?\s*'?([\w.]+)'?", text, re.MULTILINE | re.IGNORECASE)
    return found[-1] if found else ""


def as_text(value: str | int | float | bool) -> str:
    """A parameter's value as PostgreSQL reads it."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def quoted(value: str) -> str:
    """A string of postgresql.conf. Source: src/backend/utils/misc/guc-file.l (escapes as in E'')."""
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"'{escaped}'"


def quoted_role(name: str) -> str:
    """A role name in pg_hba.conf; quoting takes the meaning from words such as `all`."""
    return f'"{name}"'


def _check_name(name: str) -> None:
    if not PARAMETER_NAME.match(name):
        raise ServerRefused(f"not a parameter name: {name!r}", hint="correct postgresql.parameters")


def _include_ours(path: Path) -> bool:
    text = files.read_text(path) or ""
    lines = text.splitlines()
    if lines and lines[-1].strip() == INCLUDE:
        return False
    kept = [line for line in lines if line.strip() != INCLUDE]
    return files.write_if_changed(path, "\n".join([*kept, INCLUDE, ""]), CONF_MODE)


SNAPSHOT = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf", OURS, UPSTREAM)


def snapshot(data_dir: Path) -> Mapping[str, str]:
    """This member's configuration files inside the data directory, which pg_rewind replaces by the source's."""
    found = {name: files.read_text(data_dir / name) for name in SNAPSHOT}
    return {name: text for name, text in found.items() if text is not None}


def restore(data_dir: Path, saved: Mapping[str, str]) -> None:
    """The files are as they were at `snapshot`."""
    for name, text in saved.items():
        files.write_if_changed(data_dir / name, text, CONF_MODE)
