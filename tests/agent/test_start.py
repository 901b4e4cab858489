"""How a start that fails ends: for a person, or for another try."""

from __future__ import annotations

import asyncio
import errno
import resource
import signal
import subprocess
import threading
from typing import Any

import pytest

from hamgr.agent.__main__ import EXIT_DEFECT, OPEN_FILES, may_open_more_files, status_after
from hamgr.api.config import ApiBroken
from hamgr.guard.layout import EXIT_REFUSED_CONFIGURATION
from hamgr.postgres import programs
from hamgr.postgres.errors import ServerBroken, ServerError, ServerRefused, ServerUnavailable
from tests.agent.workbench import until

NOT_YET = ApiBroken("cannot listen")
NOT_YET.is_retryable = True


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ServerUnavailable("postgres did not end within 5 s"), EXIT_DEFECT),
        (NOT_YET, EXIT_DEFECT),
        (ApiBroken("the certificate cannot be read"), EXIT_REFUSED_CONFIGURATION),
        (ServerRefused("no such directory"), EXIT_REFUSED_CONFIGURATION),
        (ServerBroken("no PostgreSQL programs found"), EXIT_REFUSED_CONFIGURATION),
    ],
)
def test_what_passes_is_tried_again_and_what_needs_a_person_is_not(error: ApiBroken | ServerError, status: int) -> None:
    """The service manager restarts a member that ended with the first status, never one with the second."""
    assert status_after(error) == status


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EAGAIN, ServerUnavailable), (errno.ENOMEM, ServerUnavailable), (errno.ENOENT, ServerBroken)],
)
async def test_a_host_that_is_short_of_memory_is_not_one_without_the_program(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[ServerError]
) -> None:
    def fails(*_argv: str, **_given: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(programs.subprocess, "Popen", fails)
    with pytest.raises(kind):
        await programs.run(["postgres", "--version"], timeout_s=1.0)


async def test_a_program_that_does_not_come_from_its_disk_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    came, started = threading.Event(), []
    popen = subprocess.Popen

    def comes_late(*argv: Any, **given: Any) -> subprocess.Popen[bytes]:
        came.wait()
        started.append(popen(*argv, **given))
        return started[-1]

    monkeypatch.setattr(programs.subprocess, "Popen", comes_late)
    with pytest.raises(ServerUnavailable, match=r"sleep did not end within 0\.1 s"):
        await programs.run(["sleep", "1000"], timeout_s=0.1)
    came.set()
    await until(lambda: bool(started) and started[0].returncode == -signal.SIGKILL, "what came late is ended")


async def test_what_hangs_takes_no_more_threads_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    came = threading.Event()

    def never_comes(*_argv: Any, **_given: Any) -> None:
        came.wait()
        raise OSError(errno.ENOENT, "no")

    monkeypatch.setattr(programs.subprocess, "Popen", never_comes)
    before = threading.active_count()
    for _ in range(2 * programs.MOST_HANGING):
        with pytest.raises(ServerUnavailable):
            await programs.run(["sleep", "1000"], timeout_s=0.01)
    assert threading.active_count() - before <= programs.MOST_HANGING
    came.set()
    await until(lambda: threading.active_count() <= before, "they have ended")
    await until(lambda: not programs._HANGING, "and count no more")


@pytest.mark.parametrize("turns", range(1, 13))
async def test_a_call_that_is_cancelled_at_any_moment_ends_its_program(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(programs.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    running = asyncio.create_task(programs.run(["sleep", "1000"], timeout_s=60.0))
    await until(lambda: bool(started), "it has started")
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: started[0].returncode is not None, "it has ended")


@pytest.mark.parametrize(
    ("limits", "then"),
    [((1024, 1 << 20), (OPEN_FILES, 1 << 20)), ((1024, 4096), (4096, 4096)), ((1 << 18, 1 << 20), (1 << 18, 1 << 20))],
)
def test_more_files_may_be_open_than_a_shell_allows(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], then: tuple[int, int]
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _what, value: given.append(value))
    may_open_more_files()
    assert given == [then]
