"""Can this server go on from what it holds, with what another one holds?"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from hamgr.core.actions import Upstream
from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import lineage, source, wal
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.errors import Diverged, Forked, ServerBroken, WalGone

LOGGER = logging.getLogger(__name__)

HISTORY_FILE = re.compile(r"^([0-9A-F]{8})\.history$")
WAL_WRITER_S = 0.2
UNFLUSHED_LOOKS = 4
"""PostgreSQL's WAL writer flushes what was left unflushed within three of its rounds (wal_writer_delay)."""
TAIL = 8192
"""Bytes of WAL that are compared. Each record in them carries its predecessor's position and a checksum."""


@dataclass(frozen=True, slots=True)
class WalTail:
    """The last bytes of local WAL before some position, and where they begin."""

    begins: lineage.Position
    content: bytes


TailBefore = Callable[[lineage.Position], Awaitable[WalTail]]


@dataclass(frozen=True, slots=True)
class Local:
    """What the local disk holds, read before the upstream is asked."""

    system_identifier: str
    position: lineage.Position
    """End of the last complete record."""
    received: Lsn
    """First byte that a WAL receiver would ask for; at or after the position."""
    files: Mapping[Timeline, lineage.History]
    """The history files in pg_wal."""
    segment: int
    """Size of a WAL segment in bytes."""


@dataclass(frozen=True, slots=True)
class HistoryCheck:
    """The local end of WAL, and the upstream it was compared with."""

    local: lineage.Position
    upstream: source.Source
    is_wal_kept: bool | None = None
    """The upstream holds the segment that is needed next.

    None: an archive may hold it, or the local server could not say where it is.
    """


async def check(config: ServerConfig, local: Local, tail_before: TailBefore, upstream: Upstream) -> HistoryCheck:
    """`local` is an ancestor of the upstream's position, and nothing says that the WAL in between is gone.

    Raises Diverged if it is not, Forked if it shares a timeline's number and not its WAL, WalGone if the upstream no
    longer holds what is needed next, ServerBroken if it is another cluster, ServerUnavailable if it does not answer.
    """
    there = await _ask(config, local.position, upstream)
    if there.system_identifier != local.system_identifier:
        raise ServerBroken(
            f"{upstream.host} is of another cluster ({there.system_identifier}, here {local.system_identifier})",
            hint="one of the data directories belongs elsewhere; reinitialize it",
        )
    here, them = local.position, there.position
    shared = lineage.shared_end(here, local.files, them, there.history)
    await _compare_wal(config, await tail_before(shared), upstream, is_needed=bool(shared.lsn % local.segment))
    if why := lineage.why_diverged(here, local.files, them, there.history):
        raise Diverged(
            f"ends at {here.lsn} on timeline {here.timeline}, which is not in the history of {upstream.host} "
            f"({them.lsn} on timeline {them.timeline}): {why}"
        )
    return HistoryCheck(here, there, await _is_wal_kept(config, local, there, upstream))


async def _ask(config: ServerConfig, here: lineage.Position, upstream: Upstream) -> source.Source:
    """The upstream, with the WAL that it has written and is about to flush: a copy of its files, as pg_rewind makes,
    may hold some of that, which it sends to nobody yet.
    """
    there = await source.ask(config, upstream)
    for _ in range(UNFLUSHED_LOOKS):
        if there.position.timeline != here.timeline or there.position.lsn >= here.lsn:
            break
        await asyncio.sleep(WAL_WRITER_S)
        there = await source.ask(config, upstream)
    return there


async def _compare_wal(config: ServerConfig, tail: WalTail, upstream: Upstream, *, is_needed: bool) -> None:
    """What the upstream would send of the WAL there is what stands here. Raises Forked if it is not. Not compared where
    it has been removed there: WalGone, unless an archive may hold it, or it is not needed, as it ends with a segment.

    Two servers promoted from the same position have the same history files; only what they wrote tells them apart.
    """
    if not tail.content:
        return
    try:
        there = await source.sent_wal(config, upstream, tail.begins, len(tail.content))
    except WalGone:
        if not is_needed or config.parameters.get("restore_command"):
            LOGGER.warning("WAL is not compared with that of %s, which has removed it", upstream.host)
            return
        raise
    if there != tail.content:
        here = tail.begins
        raise Forked(f"has other WAL than {upstream.host} on timeline {here.timeline}, from {here.lsn} on or earlier")


async def _is_wal_kept(config: ServerConfig, local: Local, there: source.Source, upstream: Upstream) -> bool | None:
    """The segment in which `local` ends is still upstream: a WAL receiver asks for it from its beginning.

    Raises WalGone if it is not. Source: src/backend/replication/walreceiverfuncs.c, RequestXLogStreaming.
    """
    begins = Lsn(local.received // local.segment * local.segment)
    if there.position.lsn <= begins:
        return True
    if not local.received or config.parameters.get("restore_command"):
        return None
    timeline = lineage.timeline_at(begins, there.position, there.history)
    await source.sent_wal(config, upstream, lineage.Position(timeline, begins), 1)
    return True


def read_tail(data_dir: Path, end: lineage.Position, segment: int, later: Collection[Timeline]) -> WalTail:
    """What stands before `end`, at most `TAIL` bytes of one segment; empty if this disk lacks it. Blocking.

    What pg_rewind left may lack it, as its source has written more since.

    `later`: the timelines to which this server went on. The first segment of a timeline begins with a copy of the last
    one of its parent, whose file may be gone.
    """
    if not end.lsn:
        return WalTail(end, b"")
    segment_begins = (end.lsn - 1) // segment * segment
    begins = lineage.Position(end.timeline, Lsn(max(segment_begins, end.lsn - TAIL)))
    for timeline in (end.timeline, *sorted(later)):
        name = wal.segment_name(timeline, segment_begins // segment, segment)
        path = data_dir / "pg_wal" / name
        if wal.holds_page(path, Lsn((end.lsn - 1) // wal.PAGE * wal.PAGE), segment):
            with path.open("rb") as stream:
                stream.seek(begins.lsn - segment_begins)
                return WalTail(begins, stream.read(end.lsn - begins.lsn))
    return WalTail(begins, b"")


def read_files(data_dir: Path) -> Mapping[Timeline, lineage.History]:
    """The history files in pg_wal; one that cannot be read as such is left out, as if it were missing. Blocking."""
    found: dict[Timeline, lineage.History] = {}
    for path in (data_dir / "pg_wal").iterdir():
        if named := HISTORY_FILE.match(path.name):
            try:
                found[Timeline(int(named[1], 16))] = lineage.timeline_history(path.read_text(errors="replace"))
            except ValueError:
                continue
    return found
