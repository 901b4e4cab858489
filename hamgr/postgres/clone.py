"""New data directories: initdb for the first member, a base backup for the others; old ones kept aside.

Both build in `<data_dir>/hamgr.unfinished` and are moved up by renames when complete, so that the data directory
may be a mount point, and one that is interrupted at any instant is recognised by that name. Tablespaces, and WAL in a
directory of its own: see `elsewhere`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql as composed
from psycopg.rows import TupleRow

from hamgr.core.actions import Upstream
from hamgr.postgres import births, configuration, elsewhere, files, programs, scram
from hamgr.postgres import source as sources
from hamgr.postgres.config import Credentials, ServerConfig
from hamgr.postgres.control import ASIDE, UNFINISHED, rewind_marker
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import DiskFull, ServerBroken, ServerError, ServerUnavailable
from hamgr.postgres.programs import Ended
from hamgr.postgres.sql import Sql, connect

INITDB_S = 120.0
BASEBACKUP_S = 7 * 24 * 3600.0
REMOVE_S = 3600.0
DISCARD_TRIES = 5
DISCARD_PAUSE_S = 0.1
STALL_S = 120.0
"""A base backup that moves no byte for this long has lost its source."""

PROGRESS = re.compile(r"(\d+)/(\d+) kB")

REWIND_FUNCTIONS = (
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)
"""What pg_rewind calls on its source. Source: its manual page, Notes."""

ROLE = "SELECT rolcanlogin, rolreplication, coalesce(rolpassword, '') FROM pg_authid WHERE rolname = %s"


@dataclass(frozen=True, slots=True)
class CloneProgress:
    """Bytes copied and (as estimated by the source) to be copied."""

    done_bytes: int
    total_bytes: int


async def initdb(config: ServerConfig, bin_dir: Path, disk: Disk) -> None:
    """The data directory holds a new cluster, not yet started, with our pg_hba lines.

    The superuser's password goes through a pipe. Raises ServerRefused if there is a cluster already,
    ServerBroken with initdb's words.
    """
    building = await disk.run(lambda: _prepare(config.data_dir), "prepare the data directory", REMOVE_S)
    superuser = config.superuser
    argv = [
        str(bin_dir / "initdb"),
        "-D",
        str(building),
        f"--username={superuser.username}",
        "--auth-host=scram-sha-256",
    ]
    with _pipe_holding(superuser.password) as descriptor:
        argv += [f"--pwfile=/dev/fd/{descriptor}", "--auth-local=scram-sha-256"] if superuser.password else []
        argv += [] if superuser.password else ["--auth-local=peer"]
        # Not the C locale: the new cluster takes its own from the environment.
        ended = await programs.run(
            [*argv, *config.initdb_options], timeout_s=INITDB_S, environ=os.environ, pass_fds=(descriptor,)
        )
    await _finish(config, disk, ended, "initdb")
    await disk.run(lambda: configuration.write_initial_hba(config), "write pg_hba.conf")


async def create_roles(config: ServerConfig, sql: Sql) -> None:
    """Replication and rewind roles exist with their passwords, which travel and are logged SCRAM-encoded only.

    Nothing is written where all is so already: may be called at any time on a running primary.
    """
    await _ensure_role(config, sql, config.replication, "REPLICATION")
    if config.rewind is not None:
        await _ensure_role(config, sql, config.rewind, "")
        for function in REWIND_FUNCTIONS:
            await _ensure_granted(sql, function, config.rewind.username)


async def _ensure_role(config: ServerConfig, sql: Sql, role: Credentials, attributes: str) -> None:
    if role.username == config.superuser.username:
        return
    found = await sql.query(ROLE, (role.username,))
    if found and _is_as_wanted(found[0], role, attributes):
        return
    verb, name = ("ALTER" if found else "CREATE"), composed.Identifier(role.username).as_string()
    password = ""
    if role.password:
        password = f"PASSWORD {composed.Literal(await encoded_password(config, role)).as_string()}"
    await sql.query(f"{verb} ROLE {name} LOGIN {attributes} {password}")


def _is_as_wanted(row: TupleRow, role: Credentials, attributes: str) -> bool:
    can_login, can_replicate, verifier = row
    fits = not role.password or scram.is_verifier_of(verifier, role.password)
    return fits and can_login and (can_replicate or not attributes)


async def _ensure_granted(sql: Sql, function: str, username: str) -> None:
    granted = "SELECT has_function_privilege(%s, %s, 'EXECUTE')"
    if (await sql.query(granted, (username, f"pg_catalog.{function}")))[0][0]:
        return
    role = composed.Identifier(username).as_string()
    await sql.query(f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role}")


async def encoded_password(config: ServerConfig, role: Credentials) -> str:
    """The SCRAM verifier of the role's password; the password itself does not leave this process."""
    async with await connect(config) as connection:
        encrypted = connection.pgconn.encrypt_password(role.password.encode(), role.username.encode(), b"scram-sha-256")
    return encrypted.decode()


async def basebackup(
    config: ServerConfig,
    bin_dir: Path,
    disk: Disk,
    source: Upstream,
    progress: Callable[[CloneProgress], None] | None = None,
) -> None:
    """The data directory is a copy of `source`, not yet started. Passfile written before.

    `progress` is called about once a second. Raises ServerRefused if there is a cluster already, DiskFull,
    ServerBroken with the tool's words, ServerUnavailable if the source cannot be reached or falls silent.
    Whatever the error, nothing is left that would be taken for a data directory.
    """
    conninfo = configuration.remote_conninfo(
        config, source, config.replication, application_name=f"{config.name} clone"
    )
    try:
        locations = await _tablespaces(config, source)
        options, others = elsewhere.redirected(config.basebackup_options, locations, config.data_dir)
        building = await disk.run(lambda: _prepare(config.data_dir, others), "prepare the data directory", REMOVE_S)
        argv = [str(bin_dir / "pg_basebackup"), "-D", str(building), "-d", conninfo, "--no-password", "--progress"]
        argv += ["--wal-method=stream", "--checkpoint=fast", *options]
        ended = await _watched(argv, progress)
    except BaseException:
        with contextlib.suppress(ServerError, asyncio.CancelledError):
            await asyncio.shield(_discard(config, disk))
        raise
    await _finish(config, disk, ended, "pg_basebackup")
    await disk.run(lambda: configuration.disarm_auto_conf(config.data_dir), "clean postgresql.auto.conf")


async def _tablespaces(config: ServerConfig, source: Upstream) -> list[str]:
    try:
        return await sources.tablespaces(config, source)
    except ServerError:
        # The pg_hba.conf there may let only replication in: tablespaces, if any, are copied straight to their places.
        return []


async def _watched(argv: Sequence[str], progress: Callable[[CloneProgress], None] | None) -> Ended:
    """Run pg_basebackup, ending it when its count of bytes stands still for STALL_S."""
    last = CloneProgress(-1, 0)
    moved_at = time.monotonic()

    def seen(chunk: str) -> None:
        nonlocal last, moved_at
        for done, total in PROGRESS.findall(chunk):
            now = CloneProgress(int(done) * 1024, int(total) * 1024)
            if now.done_bytes != last.done_bytes:
                last, moved_at = now, time.monotonic()
                if progress is not None:
                    progress(now)

    running = asyncio.ensure_future(programs.run(argv, timeout_s=BASEBACKUP_S, on_stderr=seen))
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=1.0)
            # Once all is copied it only waits for WAL and syncs the files, which has no count.
            is_copying = last.done_bytes < last.total_bytes or last.done_bytes < 0
            if is_copying and time.monotonic() - moved_at > STALL_S:
                raise ServerUnavailable(f"the base backup has not moved for {STALL_S:g} s")
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait({running})
    return running.result()


async def _finish(config: ServerConfig, disk: Disk, ended: Ended, program: str) -> None:
    if ended.status != 0:
        await _discard(config, disk)
        raise _failure(program, ended)
    await disk.run(lambda: _move_up(config.data_dir), "complete the data directory", REMOVE_S)


async def _discard(config: ServerConfig, disk: Disk) -> None:
    """What was copied is gone. A killed helper of pg_basebackup may write a last file while its directory goes."""
    for left in reversed(range(DISCARD_TRIES)):
        try:
            await disk.run(lambda: remove_unfinished(config.data_dir), "remove the unfinished copy", REMOVE_S)
            return
        except ServerBroken:
            if not left:
                raise
            await asyncio.sleep(DISCARD_PAUSE_S)


def _failure(program: str, ended: Ended) -> ServerBroken | ServerUnavailable:
    words = programs.last_words(ended)
    if "No space left on device" in ended.err or "Disk quota exceeded" in ended.err:
        return DiskFull(f"{program}: {words}", hint="free space for the data directory or make it larger")
    if re.search(r"connection to server .* failed|could not connect|closed the connection unexpectedly", ended.err):
        if "no pg_hba.conf entry" in ended.err or "authentication failed" in ended.err:
            return ServerBroken(f"{program}: {words}", hint="check pg_hba and the replication role on the source")
        return ServerUnavailable(f"{program}: {words}")
    return ServerBroken(f"{program}: {words}")


def _prepare(data_dir: Path, others: Sequence[Path] = ()) -> Path:
    """An empty directory to build in, inside a data directory that holds no cluster; `others` elsewhere. Blocking."""
    if data_dir.exists():
        remove_unfinished(data_dir)
    building = elsewhere.make_room(data_dir / UNFINISHED)
    elsewhere.note(data_dir, others)
    for other in others:
        elsewhere.make_room(other)
    return building


def remove_unfinished(data_dir: Path) -> None:
    """What an interrupted initdb or base backup left is gone; a cluster that is complete is not touched. Blocking."""
    building = data_dir / UNFINISHED
    if not building.exists():
        return
    # First, while there are links to find it by.
    elsewhere.remove(data_dir, building)
    for name in _names(data_dir):
        # Interrupted while being moved up: parts of it already stand beside the marker.
        if name != UNFINISHED and not elsewhere.is_spared(name):
            files.remove_tree(data_dir / name)
    files.remove_tree(building)
    files.sync_dir(data_dir)


def _move_up(data_dir: Path) -> None:
    building = data_dir / UNFINISHED
    births.remove(building)
    elsewhere.move_up(data_dir)
    data_dir.chmod(building.stat().st_mode & 0o777)
    for name in _names(building):
        os.rename(building / name, data_dir / name)
    files.sync_dir(data_dir)
    building.rmdir()
    files.sync_dir(data_dir)
    rewind_marker(data_dir).unlink(missing_ok=True)


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def remove_cluster(data_dir: Path) -> None:
    """The data directory is empty but for what was kept aside inside it. The server must not run. Blocking."""
    if not data_dir.is_dir():
        return
    # The marker first: a removal that is interrupted must not look like a cluster.
    (data_dir / UNFINISHED).mkdir(mode=0o700, exist_ok=True)
    files.sync_dir(data_dir)
    remove_unfinished(data_dir)
    rewind_marker(data_dir).unlink(missing_ok=True)


def keep_aside(data_dir: Path, stamp: str, keep: int = 1) -> Path | None:
    """The cluster stands in `<data_dir>.diverged-<stamp>`, and of others of that name the newest, `keep` together.

    Where the directory cannot be renamed (a mount point), it moves to a directory of that kind inside it.
    Returns its new place, None if there is no cluster. Blocking; the server must not run.
    """
    if (data_dir / UNFINISHED).exists() or not (data_dir / "PG_VERSION").exists():
        return None
    marker = rewind_marker(data_dir)
    # Renaming a symbolic link would leave the cluster where it is.
    data_dir = Path(os.path.realpath(data_dir))
    beside = data_dir.with_name(f"{data_dir.name}.diverged-{stamp}")
    elsewhere.keep_aside(data_dir, stamp, half_done=marker)
    try:
        os.rename(data_dir, beside)
        data_dir.mkdir(mode=0o700)
        place = beside
    except OSError:
        place = _keep_inside(data_dir, stamp)
    marker.unlink(missing_ok=True)
    # Whatever its stamp, as the clock may have been set back: it may be the only copy of what was acknowledged.
    found = (*data_dir.parent.glob(f"{data_dir.name}.diverged-*"), *data_dir.glob(f"{ASIDE}*"))
    others = sorted((path for path in found if path.is_dir() and path != place), key=_stamp)
    for old in others[: max(0, len(others) + 1 - keep)]:
        elsewhere.forget(old)
        shutil.rmtree(old)
    return place


def _keep_inside(data_dir: Path, stamp: str) -> Path:
    place = data_dir / f"{ASIDE}{stamp}"
    place.mkdir(mode=0o700)
    # Half moved, it must not look like a cluster.
    building = data_dir / UNFINISHED
    building.mkdir(mode=0o700, exist_ok=True)
    for name in _names(data_dir):
        if name != UNFINISHED and not elsewhere.is_spared(name):
            os.rename(data_dir / name, place / name)
    files.sync_dir(data_dir)
    building.rmdir()
    return place


def _stamp(path: Path) -> str:
    return path.name.rpartition(".diverged-")[2]


@contextlib.contextmanager
def _pipe_holding(secret: str) -> Iterator[int]:
    reader, writer = os.pipe()
    try:
        os.write(writer, f"{secret}\n".encode())
        os.close(writer)
        yield reader
    finally:
        os.close(reader)
