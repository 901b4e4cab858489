"""A PostgreSQL server as the drill sees it, whoever manages it: what it says by SQL, and the process that it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg

from hamgr.drill.errors import DrillError
from hamgr.drill.freezing import state_of

_STANDING = """
SELECT pg_is_in_recovery(),
       (SELECT status FROM pg_stat_wal_receiver),
       (SELECT received_tli FROM pg_stat_wal_receiver),
       CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a server itself says by SQL. `timeline`: written to if primary, received if standby."""

    is_primary: bool
    is_streaming: bool
    timeline: int
    synchronous_standbys: int = 0
    """Whose confirmation its commits may wait for."""


def standing_of(dsn: str, password: str) -> Standing | None:
    """By SQL; None when the server does not answer."""
    try:
        with psycopg.connect(dsn, password=password, autocommit=True) as connection:
            row = connection.execute(_STANDING).fetchone()
    except psycopg.Error:
        return None
    assert row is not None
    in_recovery, status, received, written, synchronous = row
    timeline = int(received or 0) if in_recovery else int(written, 16)
    return Standing(not in_recovery, status == "streaming", timeline, synchronous)


def recorded_postmaster(data_dir: Path) -> int:
    """Pid in the first line of postmaster.pid. Raises DrillError when no server is recorded there or it is dead."""
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError) as error:
        raise DrillError(f"no running postgres: {error}") from error
    if state_of(pid) in ("", "Z"):  # a zombie, whose parent has not looked yet, is dead
        raise DrillError(f"postmaster.pid names {pid}, which is dead")
    return pid
