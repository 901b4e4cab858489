"""PostgreSQL's programs as child processes with a deadline. Passwords never travel in arguments or environment."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from hamgr.postgres.errors import ServerBroken, ServerUnavailable
from hamgr.postgres.threads import in_own_thread

T = TypeVar("T")

REAP_S = 2.0
"""How long a killed program may take to vanish; one that sits in the kernel is left behind."""
MOST_HANGING = 8
_HANGING: set[asyncio.Future[Any]] = set()
"""Starts and ends of programs that have not come yet; each has a thread. No more are begun while so many hang."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Exit status (negative: signal) and what the program wrote."""

    status: int
    out: str
    err: str


def c_locale() -> dict[str, str]:
    """Our environment with messages in English, because we parse them."""
    return {**os.environ, "LC_ALL": "C"}


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    environ: Mapping[str, str] | None = None,
    on_stderr: Callable[[str], None] | None = None,
    pass_fds: Sequence[int] = (),
    keep_out: int | None = None,
) -> Ended:
    """The program has ended when this returns. `on_stderr` sees each chunk as it comes. `keep_out`:
    how many of the last characters of standard output are enough.

    Raises ServerUnavailable (program killed) after `timeout_s`; ServerBroken if it cannot be executed.
    A cancelled call kills the program too.
    """
    try:
        async with asyncio.timeout(timeout_s), _started(argv, environ or c_locale(), pass_fds) as program:
            out, err = await asyncio.gather(_read(program.out, keep=keep_out), _read(program.err, on_stderr))
            status = await asyncio.shield(_watched(in_own_thread(program.process.wait)))
    except TimeoutError as error:
        raise ServerUnavailable(f"{_name(argv)} did not end within {timeout_s:g} s") from error
    return Ended(status, out, err)


@dataclass(frozen=True, slots=True)
class _Program:
    process: subprocess.Popen[bytes]
    out: asyncio.StreamReader
    err: asyncio.StreamReader


@contextlib.asynccontextmanager
async def _started(argv: Sequence[str], environ: Mapping[str, str], pass_fds: Sequence[int]) -> AsyncIterator[_Program]:
    def start() -> subprocess.Popen[bytes]:
        # A group to be killed as one, in the agent's session: the guard ends what a dead agent left in that.
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            pass_fds=tuple(pass_fds),
            process_group=0,
        )

    if len(_HANGING) >= MOST_HANGING:
        raise ServerUnavailable(f"cannot run {argv[0]} now: {len(_HANGING)} programs hang already")
    # Not in the loop's thread, which would wait for the program's exec, and with that for the disk that it is on.
    # Python before 3.11.4 waits in all threads (cpython gh-104372); by fork instead of vfork, gRPC breaks the child.
    starting = _watched(in_own_thread(start))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_kill_late)
        raise
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            raise ServerUnavailable(f"cannot run {argv[0]} now: {error}") from error
        raise ServerBroken(f"cannot run {argv[0]}: {error}", hint="is postgresql.bin_dir right?") from error
    try:
        async with _reading(process.stdout) as out, _reading(process.stderr) as err:
            yield _Program(process, out, err)
    finally:
        if process.poll() is None:
            _kill(process)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(_watched(in_own_thread(process.wait))), REAP_S)


def _watched(call: asyncio.Future[T]) -> asyncio.Future[T]:
    """It counts among those that hang until it ends."""
    _HANGING.add(call)
    call.add_done_callback(_HANGING.discard)
    return call


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The whole group: pg_basebackup has a child that streams WAL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _kill_late(starting: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    """Nobody waits for it any more."""
    if starting.exception() is None:
        _kill(starting.result())
        _watched(in_own_thread(starting.result().wait))


@contextlib.asynccontextmanager
async def _reading(pipe: IO[bytes] | None) -> AsyncIterator[asyncio.StreamReader]:
    assert pipe is not None
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        yield reader
    finally:
        transport.close()


async def _read(
    stream: asyncio.StreamReader, seen: Callable[[str], None] | None = None, keep: int | None = None
) -> str:
    chunks: deque[str] = deque()
    length = 0
    while chunk := await stream.read(65536):
        chunks.append(chunk.decode(errors="replace"))
        length += len(chunks[-1])
        while keep is not None and length - len(chunks[0]) > keep:
            length -= len(chunks.popleft())
        if seen is not None:
            seen(chunks[-1])
    return "".join(chunks)


def _name(argv: Sequence[str]) -> str:
    return os.path.basename(argv[0])


def last_words(ended: Ended, lines: int = 3) -> str:
    """The last lines a failed program said, for an error text."""
    said = [line.strip() for line in ended.err.replace("\r", "\n").splitlines() if line.strip()]
    return "; ".join(said[-lines:]) or f"exit status {ended.status}"
