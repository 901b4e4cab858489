"""What stands in the data directory: its state, its owner, its control file. Blocking parts: call through Disk."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hamgr.core.server import ControlFile, DataDir
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import programs
from hamgr.postgres.errors import ServerBroken

UNFINISHED = "hamgr.unfinished"
"""Subdirectory in which initdb and base backups build; while it stands the data directory is not one."""
ASIDE = "hamgr.diverged-"
REWINDING = ".hamgr-rewinding"
"""Suffix of the marker beside the data directory while pg_rewind may have changed it (it removes markers inside)."""

FLOORS = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}


@dataclass(frozen=True, slots=True)
class Control:
    """The control file, with the shared-memory settings that a standby must not go below."""

    file: ControlFile
    floors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the data directory is; `problem` says what to do where it is unusable or unfinished."""

    state: DataDir
    problem: str = ""
    major: int = 0


def rewind_marker(data_dir: Path) -> Path:
    return data_dir.with_name(data_dir.name + REWINDING)


def inspect(data_dir: Path, server_major: int) -> Inspection:
    """Look at names, owner, permissions and version only. `server_major`: of the installed programs."""
    try:
        status = data_dir.stat()
        names = set(os.listdir(data_dir)) if os.path.isdir(data_dir) else None
    except FileNotFoundError:
        return Inspection(DataDir.EMPTY)
    except PermissionError as error:
        return _unusable(f"{error}; make it readable for user id {os.geteuid()}")
    if names is None:
        return _unusable(f"{data_dir} is not a directory; set postgresql.data_dir to one")
    if status.st_uid != os.geteuid():
        return _unusable(f"{data_dir} belongs to user id {status.st_uid}, not to {os.geteuid()}; run chown -R")
    if UNFINISHED in names:
        return Inspection(DataDir.UNFINISHED, "an initdb or base backup did not end; it will be removed")
    if rewind_marker(data_dir).exists():
        return Inspection(DataDir.UNFINISHED, "a pg_rewind did not end; it will be replaced by a clone")
    return _contents(data_dir, names, status.st_mode, server_major)


def _contents(data_dir: Path, names: set[str], mode: int, server_major: int) -> Inspection:
    if not {name for name in names if name != "lost+found" and not name.startswith(ASIDE)}:
        return Inspection(DataDir.EMPTY)
    if "PG_VERSION" not in names or not (data_dir / "global" / "pg_control").exists():
        return _unusable(f"{data_dir} has files but is not a PostgreSQL data directory; empty it or name another")
    written = (data_dir / "PG_VERSION").read_text().strip()
    if written != str(server_major):
        return _unusable(
            f"{data_dir} is of PostgreSQL {written}, the programs of {server_major}; set postgresql.bin_dir"
        )
    if mode & 0o027:
        return _unusable(f"{data_dir} has mode {mode & 0o777:04o}, PostgreSQL demands 0700 or 0750; run chmod")
    return Inspection(DataDir.VALID, major=server_major)


def _unusable(problem: str) -> Inspection:
    return Inspection(DataDir.UNUSABLE, problem)


async def read_control(bin_dir: Path, data_dir: Path, timeout_s: float = 5.0) -> Control:
    """The control file as pg_controldata reads it. Raises ServerBroken if it cannot."""
    ended = await programs.run([str(bin_dir / "pg_controldata"), str(data_dir)], timeout_s=timeout_s)
    if ended.status != 0:
        raise ServerBroken(f"pg_controldata: {programs.last_words(ended)}")
    # A warning, and status 0 all the same: on standard output before PostgreSQL 17, and with a capital letter.
    if "crc checksum does not match" in (ended.out + ended.err).lower():
        raise ServerBroken(f"{data_dir}/global/pg_control is damaged: its checksum does not match")
    return parse_control(ended.out)


def parse_control(text: str) -> Control:
    """Read pg_controldata's answer (English). Raises ServerBroken naming the line that is missing."""
    lines = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", text, re.MULTILINE))
    try:
        control = ControlFile(
            system_identifier=lines["Database system identifier"],
            cluster_state=lines["Database cluster state"],
            timeline=Timeline(int(lines["Latest checkpoint's TimeLineID"])),
            checkpoint_lsn=Lsn.parse(lines["Latest checkpoint location"]),
            redo_lsn=Lsn.parse(lines["Latest checkpoint's REDO location"]),
            min_recovery_timeline=Timeline(int(lines["Min recovery ending loc's timeline"])),
            min_recovery_lsn=Lsn.parse(lines["Minimum recovery ending location"]),
        )
        floors = {name: int(lines[label]) for label, name in FLOORS.items()}
    except KeyError as error:
        raise ServerBroken(f"pg_controldata does not tell {error}") from error
    return Control(control, floors)


async def program_major(bin_dir: Path, timeout_s: float = 5.0) -> int:
    """Major version of the installed server. Raises ServerBroken if it does not tell."""
    ended = await programs.run([str(bin_dir / "postgres"), "--version"], timeout_s=timeout_s)
    found = re.search(r"(\d+)", ended.out)
    if ended.status != 0 or found is None:
        raise ServerBroken(f"{bin_dir}/postgres --version: {programs.last_words(ended)}")
    return int(found.group(1))
