"""What differs by major version of PostgreSQL, as data. Source: the release notes of 13 to 18."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hamgr.postgres.errors import ServerRefused


@dataclass(frozen=True, slots=True)
class Version:
    """One supported major version."""

    major: int
    replay_paused_sql: str = "pg_catalog.pg_get_wal_replay_pause_state() <> 'not paused'"
    rewind_takes_config_file: bool = True
    """pg_rewind --config-file: needed where postgresql.conf lies outside of the data directory."""
    rewind_knows_fresh_promotion: bool = False
    """Before 16 pg_rewind trusts the source's last checkpoint for its timeline and so misses a promotion that
    has not been followed by a checkpoint; we wait for that checkpoint."""
    syncs_slots: bool = False
    """Failover slots: a standby copies the primary's logical slots (sync_replication_slots)."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Defaults of ours that only this version knows."""


NOTICES_DEAD_CLIENTS = {"client_connection_check_interval": "5s"}

VERSIONS = {
    13: Version(13, "pg_catalog.pg_is_wal_replay_paused()", rewind_takes_config_file=False),
    14: Version(14, rewind_takes_config_file=False, parameters=NOTICES_DEAD_CLIENTS),
    15: Version(15, parameters=NOTICES_DEAD_CLIENTS),
    16: Version(16, rewind_knows_fresh_promotion=True, parameters=NOTICES_DEAD_CLIENTS),
    17: Version(17, rewind_knows_fresh_promotion=True, syncs_slots=True, parameters=NOTICES_DEAD_CLIENTS),
    18: Version(18, rewind_knows_fresh_promotion=True, syncs_slots=True, parameters=NOTICES_DEAD_CLIENTS),
}


def version(major: int) -> Version:
    """What is particular to that major version. Raises ServerRefused if we do not know it."""
    known = VERSIONS.get(major)
    if known is None:
        raise ServerRefused(
            f"PostgreSQL {major} is not supported", hint=f"install one of {min(VERSIONS)} to {max(VERSIONS)}"
        )
    return known
