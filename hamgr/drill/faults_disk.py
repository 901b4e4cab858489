"""Faults of disks: full, read-only, stuck. Each member has its own disks for data, WAL and whatever else."""

from __future__ import annotations

import contextlib
import time

import psycopg
from psycopg import pq

from hamgr.drill.base_member import BaseMember, MemberDisks
from hamgr.drill.client import conninfo
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import NETNS_ONLY, PRIMARY, Fault, Undo, Victims, all_of
from hamgr.drill.freezing import wait_until_stuck

_STUCK_TIMEOUT_S = 10.0
_SWITCHES = 40
"""More segments than the disk for WAL holds."""


def _data_disk_full(victims: Victims) -> Undo:
    return _disks(victims.primary).data.fill()


def _wal_disk_full(victims: Victims) -> Undo:
    """Full, and WAL is used up as on a busy server: the segments that are there already would last for long here."""
    undo = _disks(victims.primary).wal.fill()
    member = victims.primary
    with contextlib.suppress(psycopg.Error), psycopg.connect(member.dsn, password=member.password) as connection:
        connection.autocommit = True
        for _ in range(_SWITCHES):
            connection.execute("SELECT pg_logical_emit_message(false, 'drill', 'x'), pg_switch_wal()")
    return undo


def _disk_read_only(victims: Victims) -> Undo:
    """Undone as an administrator would: stop the machine, check the file system, start again."""
    member, disk = victims.primary, _disks(victims.primary).data
    disk.break_read_only()

    def undo() -> None:
        member.host.kill_all()
        disk.repair()
        victims.cluster.start_member(member)

    return undo


def _disk_hung(victims: Victims) -> Undo:
    """Both disks at once, as when a storage network is gone."""
    disks = _disks(victims.primary)
    disks.wal.freeze()
    disks.data.freeze()
    return all_of([disks.wal.thaw, disks.data.thaw])


def _backend_stuck(victims: Victims) -> Undo:
    """One session writes to a file elsewhere that is stuck; no signal ends it. The server itself is well."""
    member, disk = victims.primary, _disks(victims.primary).spare
    postmaster = member.postmaster_pid()
    disk.freeze()
    try:
        connection = _begin_copy(member, f"{disk.mount}/{time.monotonic_ns()}")
        wait_until_stuck(postmaster, _STUCK_TIMEOUT_S)
    except DrillError:
        disk.thaw()
        raise
    return all_of([connection.finish, disk.thaw])


def _begin_copy(member: BaseMember, path: str) -> pq.abc.PGconn:
    dsn = f"{conninfo(member.host.address, member.postgres_port)} password={member.password}"
    connection = pq.PGconn.connect(dsn.encode())
    if connection.status != pq.ConnStatus.OK:
        raise DrillError(f"{member.name}: {connection.get_error_message()}")
    connection.send_query(f"COPY (SELECT 1) TO '{path}'".encode())
    return connection


def _disks(member: BaseMember) -> MemberDisks:
    if member.disks is None:
        raise DrillError("this needs disks of their own: --on netns, as root")
    return member.disks


DISK_FAULTS = (
    Fault(
        "data-disk-full",
        "data disk of the primary full",
        _data_disk_full,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=NETNS_ONLY,
        needs_disks=True,
        weight=3,
    ),
    Fault(
        "wal-disk-full",
        "WAL disk of the primary full, and WAL is written",
        _wal_disk_full,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=NETNS_ONLY,
        needs_disks=True,
        weight=3,
    ),
    Fault(
        "disk-read-only",
        "data disk of the primary turns read-only",
        _disk_read_only,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=NETNS_ONLY,
        needs_disks=True,
        weight=3,
    ),
    Fault(
        "disk-hung",
        "data and WAL disk of the primary hang: writes never end",
        _disk_hung,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=NETNS_ONLY,
        needs_disks=True,
        weight=3,
    ),
    Fault(
        "backend-stuck",
        "one session of the primary stuck in the kernel, beyond any signal",
        _backend_stuck,
        False,
        PRIMARY,
        hold_ttls=1.5,
        places=NETNS_ONLY,
        needs_disks=True,
        weight=3,
    ),
)
