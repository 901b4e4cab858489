"""Where the WAL on this disk ends."""

from __future__ import annotations

import re
import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from hamgr.core.server import ControlFile
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import programs
from hamgr.postgres.errors import WalUnreadable
from hamgr.postgres.lineage import Position

PAGE = 8192
"""XLOG_BLCKSZ of every packaged build."""
SHORT_HEADER = 24
LONG_HEADER = 40
ALIGNMENT = 8
SEGMENTS_OF = 1 << 32
"""Segment files are numbered within every 4 GiB of WAL. Source: src/include/access/xlog_internal.h, XLogFileName."""
DEFAULT_SEGMENT = 16 * 1024 * 1024
LISTING_TAIL = 1024 * 1024
"""Of the listing only the end matters; from an old checkpoint it can have the size of all WAL since."""
BACK_OFF = 64 * 1024
"""The last known write position may lie inside a record: reading starts this much earlier, on a page boundary."""

PAGE_HEADER = struct.Struct("=HHIQ")
"""XLogPageHeaderData as far as the page's own address, which comes last."""

SEGMENT_FILE = re.compile(r"[0-9A-F]{24}")
RECORD = re.compile(r"len \(rec/tot\):\s*\d+/\s*(\d+),.*?lsn: ([0-9A-F]+/[0-9A-F]+),.*?desc: (\S+)")


def record_end(lsn: Lsn, total_length: int, segment: int = DEFAULT_SEGMENT) -> Lsn:
    """First byte after the record of `total_length` bytes at `lsn`, page headers counted in, aligned to 8.

    Source: src/backend/access/transam/xlogreader.c, XLogDecodeNextRecord. A record that fills its page ends at the
    page boundary, before the next page's header, as pg_current_wal_lsn() and the shutdown checkpoint count.
    """
    position = int(lsn)
    left = -(-total_length // ALIGNMENT) * ALIGNMENT
    while True:
        room = PAGE - position % PAGE
        if left <= room:
            return Lsn(position + left)
        left -= room
        position += room
        position += LONG_HEADER if position % segment == 0 else SHORT_HEADER


def last_record_end(listing: str, segment: int = DEFAULT_SEGMENT) -> Lsn:
    """End of the last record in pg_waldump's listing; 0 if there is none. A switch ends its whole segment."""
    end, is_switch = _last_record(listing, segment)
    return Lsn((end // segment + 1) * segment) if is_switch and end % segment else end


def _last_record(listing: str, segment: int) -> tuple[Lsn, bool]:
    """Where the last record's own bytes end (0: there is none), and whether it gives up the rest of its segment."""
    last = deque(RECORD.finditer(listing), maxlen=1)
    if not last:
        return Lsn(0), False
    found = last[0]
    return record_end(Lsn.parse(found[2]), int(found[1]), segment), found[3] == "SWITCH"


@dataclass(frozen=True, slots=True)
class Base:
    """Where reading may start for certain, from the control file: timeline, position, what stands there."""

    timeline: Timeline
    lsn: Lsn
    is_record: bool
    """True: a record begins there (the last checkpoint); False: one ended there, maybe the last one."""


def base_of(control: ControlFile) -> Base:
    """The latest position that the control file vouches for.

    A server promoted since its last checkpoint writes on the timeline of 'minimum recovery', not on that of the
    checkpoint. Source: src/backend/access/transam/xlog.c, CreateEndOfRecoveryRecord.
    """
    if control.min_recovery_lsn > control.checkpoint_lsn:
        return Base(max(control.timeline, control.min_recovery_timeline), control.min_recovery_lsn, False)
    return Base(control.timeline, control.checkpoint_lsn, True)


async def wal_end(
    bin_dir: Path, data_dir: Path, base: Base, start: Lsn, *, segment: int, present: Lsn, timeout_s: float = 10.0
) -> Lsn:
    """End of the last valid record on this disk, as crash recovery would find it.

    `present`: see `end_of_segments`. `start`: a position that was written since this host booted, so that little is
    read; 0: unknown, read from `base`. Both `start` and a replica's received position can be greater than what is
    returned, by a part of the record that follows.
    Raises WalUnreadable if no record can be read where there must be one.
    """
    if start > base.lsn + BACK_OFF:
        near = Lsn((start - BACK_OFF) // PAGE * PAGE)
        end, _ = await _dump(bin_dir, data_dir, base.timeline, near, present, segment, timeout_s)
        # No demand that end >= start: whole pages are written and sent before the record that ends in them is
        # complete, so the last valid record may end before the write position.
        if end:
            return end
    end, said = await _dump(bin_dir, data_dir, base.timeline, base.lsn, present, segment, timeout_s)
    if not end and base.is_record:
        raise WalUnreadable(f"no valid WAL record at the checkpoint {base.lsn}: {said}")
    return max(end, base.lsn)


async def _dump(
    bin_dir: Path, data_dir: Path, timeline: Timeline, start: Lsn, present: Lsn, segment: int, timeout_s: float
) -> tuple[Lsn, str]:
    ended = await _listed(bin_dir, data_dir, timeline, start, present, segment, timeout_s)
    # It ends with status 1 at the first invalid record: that is the end of WAL that we look for.
    return last_record_end(ended.out, segment), programs.last_words(ended)


async def last_byte_of(bin_dir: Path, data_dir: Path, end: Position, *, segment: int, timeout_s: float = 10.0) -> Lsn:
    """Where the record that ends at `end` has its last byte: earlier only for a switch, which ends its segment.

    What follows a switch in its segment means nothing: a replica that lost its stream there may not have got it.
    """
    if end.lsn % segment:
        return end.lsn
    begins = Lsn(max(0, end.lsn - segment))
    ended = await _listed(bin_dir, data_dir, end.timeline, begins, end.lsn, segment, timeout_s)
    return _last_record(ended.out, segment)[0] or end.lsn


async def _listed(
    bin_dir: Path, data_dir: Path, timeline: Timeline, start: Lsn, present: Lsn, segment: int, timeout_s: float
) -> programs.Ended:
    """All records from `start` to `present`, which is the end of a segment.

    The first and the last file are named: else it takes the segment size from whichever file is listed first in there,
    and gives up where that one is only made ready, all zeros. Source: pg_waldump.c, search_directory.
    """
    waldump = str(bin_dir / "pg_waldump")
    argv = [waldump, "-p", str(data_dir / "pg_wal"), "-t", str(timeline), "-s", str(start), "-e", str(present)]
    files = [segment_name(timeline, number, segment) for number in (start // segment, (present - 1) // segment)]
    return await programs.run([*argv, *files], timeout_s=timeout_s, keep_out=LISTING_TAIL)


def end_of_segments(data_dir: Path, timeline: Timeline, start: Lsn, segment: int) -> Lsn:
    """End of the last segment file, of those that follow each other from the one that holds `start`.

    pg_waldump waits five seconds for a file that is not there; where WAL ends with a segment the next one is not.
    Source: src/bin/pg_waldump/pg_waldump.c, WALDumpOpenSegment.
    """
    number = start // segment
    while (data_dir / "pg_wal" / segment_name(timeline, number, segment)).exists():
        number += 1
    return Lsn(max(number, start // segment + 1) * segment)


def last_begun(data_dir: Path, timeline: Timeline, start: Lsn, segment: int) -> Lsn | None:
    """Where the last segment begins in which anything was written, of those that follow each other from the one that
    holds `start`; None if nothing was written even there. Blocking.

    All before it is complete and on the disk, for a segment is flushed before the next one is begun; a file that was
    only made ready for it bears another address. Source: src/backend/replication/walreceiver.c, XLogWalRcvClose.
    """
    first = number = start // segment
    while holds_page(data_dir / "pg_wal" / segment_name(timeline, number, segment), Lsn(number * segment), segment):
        number += 1
    return Lsn((number - 1) * segment) if number > first else None


def holds_page(path: Path, begins: Lsn, segment: int) -> bool:
    """That segment file holds the page which begins there: it was not only made ready for it. Blocking."""
    try:
        with path.open("rb") as stream:
            stream.seek(begins % segment)
            header = stream.read(PAGE_HEADER.size)
    except FileNotFoundError:
        return False
    return len(header) == PAGE_HEADER.size and PAGE_HEADER.unpack(header)[3] == begins


def newest_timeline(data_dir: Path) -> Timeline:
    """Of the segment files on this disk; 0 if there is none. Blocking.

    A file that was only made ready bears the number of the timeline on which the server was then.
    """
    names = (path.name for path in (data_dir / "pg_wal").glob("*"))
    return Timeline(max((int(name[:8], 16) for name in names if SEGMENT_FILE.fullmatch(name)), default=0))


def segment_name(timeline: Timeline, number: int, segment: int) -> str:
    """Name of the segment file of that number, counted from the beginning of all WAL."""
    per_file = SEGMENTS_OF // segment
    return f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"


def segment_size(data_dir: Path) -> int:
    """Size of a WAL segment in bytes, from the files themselves. Blocking."""
    for path in (data_dir / "pg_wal").iterdir():
        if SEGMENT_FILE.fullmatch(path.name) and (size := path.stat().st_size):
            return size
    return DEFAULT_SEGMENT
