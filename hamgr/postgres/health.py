"""Does the server really write? Asked with a fresh connection and by a write and fsync on its file systems."""

from __future__ import annotations

import os
from pathlib import Path

from hamgr.postgres import sql
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.disk import Disk
from hamgr.postgres.promote import COMMIT

PROBE_FILE = "hamgr.probe"
PROBE_BYTES = 4096


async def check_commit(config: ServerConfig, *, timeout_s: float) -> None:
    """A new connection was accepted and a small commit is flushed to this disk (missing standbys do not matter).

    Raises ServerUnavailable (hung), ServerRefused (read only, disk full) or ServerBroken (not let in).
    """
    connection = await sql.connect(config, timeout_s=timeout_s)
    try:
        await sql.with_deadline(connection, connection.execute(COMMIT), timeout_s)
    finally:
        await connection.close()


async def check_disk(config: ServerConfig, disk: Disk, *, timeout_s: float) -> None:
    """Data and WAL file systems took a write and an fsync. Raises ServerUnavailable, DiskFull or ServerBroken."""
    await disk.run(lambda: _write(config.data_dir), "write to the data directory", timeout_s)
    wal = config.data_dir / "pg_wal"
    if wal.is_symlink():
        await disk.run(lambda: _write(Path(os.path.realpath(wal))), "write to the WAL directory", timeout_s)


def _write(directory: Path) -> None:
    descriptor = os.open(directory / PROBE_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, os.urandom(8) * (PROBE_BYTES // 8), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
