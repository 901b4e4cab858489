"""A file that PgBouncer's own includes, with the address of the leader in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

from hamgr.routing.errors import RouteError
from hamgr.routing.pgbouncer import Pool, reload

HEAD = "; Written by hamgr: where the leader is. It is written anew with each change of leader.\n[databases]\n"
WRITE_S = 5.0
MODE = 0o644
"""There is nothing secret in it, and PgBouncer may run as another user."""


def target_text(pool: Pool, host: str, port: int) -> str:
    """A line for each database of the pool, or one for all. Source: PgBouncer's manual, section [databases]."""
    rest = f" {pool.target_options}" if pool.target_options else ""
    lines = [f"{name} = host={host} port={port}{rest}\n" for name in pool.databases or ("*",)]
    return HEAD + "".join(lines)


def write_target(path: Path, text: str) -> None:
    """The file has that text, or the one that it had: never anything in between, nor after a crash. Raises OSError."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == text.encode():
            return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fchmod(file.fileno(), MODE)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


async def point(pool: Pool, path: Path, host: str, port: int) -> None:
    """The pool, whose target file is `path`, leads to that server. Raises RouteError."""
    try:
        async with asyncio.timeout(WRITE_S):
            await asyncio.to_thread(write_target, path, target_text(pool, host, port))
    except TimeoutError:
        raise RouteError(f"{pool} does not lead to {host}:{port}: writing {path} took too long") from None
    except OSError as error:
        raise RouteError(f"{pool} does not lead to {host}:{port}: {path}: {error.strerror}") from error
    await reload(pool)
