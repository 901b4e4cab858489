"""The agent process, started by the guard: `python -m hamgr.agent FILE`."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import sys
import threading
from pathlib import Path

from hamgr.agent import journal
from hamgr.agent.compose import run_agent
from hamgr.api.config import ApiBroken
from hamgr.guard.layout import EXIT_REFUSED_CONFIGURATION
from hamgr.postgres.errors import ServerError
from hamgr.settings import Loaded, SettingsError, load

EXIT_DEFECT = 70
OPEN_FILES = 65536
"""As config/hamgr.service allows. Where something else starts this, the limit is often 1024, and REST has clients."""
M_ARENA_MAX = -8
"""mallopt(3): without a bound each of the agent's threads gets a heap of its own."""


def main() -> int:
    """Run the agent for the configuration file named by the only argument."""
    path = Path(sys.argv[1])
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    may_open_more_files()
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("hamgr-agent")
    try:
        loaded = load(path)
    except SettingsError as error:
        journal.complain(str(error))
        return EXIT_REFUSED_CONFIGURATION
    runtime_dir = os.environ.get("HAMGR_RUNTIME_DIR") or loaded.settings.runtime_dir
    journal.set_up(loaded.settings.log.level, as_json=loaded.settings.log.is_json)
    for problem in loaded.warnings:
        journal.LOGGER.warning("%s", problem)
    threading.excepthook = _end_with_traceback
    tell_by_the_log()
    try:
        asyncio.run(_run(path, loaded, runtime_dir))
    except (ApiBroken, ServerError) as error:
        hint = f" ({error.hint})" if isinstance(error, ServerError) and error.hint else ""
        journal.LOGGER.error("cannot start: %s%s", error, hint)
        return status_after(error)
    except Exception:  # noqa: BLE001
        # The one place that catches everything: whatever it is, it is on record, and the guard takes over.
        journal.LOGGER.exception("ending because of a defect in hamgr: please report it with the lines above")
    return EXIT_DEFECT


def may_open_more_files() -> None:
    """This process, and the servers that it starts, may have as many files open as they will need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(OPEN_FILES, hard)), hard))


def status_after(error: ApiBroken | ServerError) -> int:
    """A host that boots may be short of time, memory or addresses: then the guard tries again, after longer pauses."""
    return EXIT_DEFECT if error.is_retryable else EXIT_REFUSED_CONFIGURATION


def _end_with_traceback(failure: threading.ExceptHookArgs) -> None:
    """A thread that ends by a defect takes the process along: without its renewals the agent would only seem well."""
    error = failure.exc_value
    journal.LOGGER.error("ending because of a defect in hamgr, in thread %s", failure.thread, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_DEFECT)


def tell_by_the_log() -> None:
    """What Python itself complains of is in the log: it would write to standard error from the thread of the loop."""
    sys.unraisablehook = _tell
    logging.captureWarnings(capture=True)


def _tell(failure: sys.UnraisableHookArgs) -> None:
    """An error of which nobody can be told, such as one in a destructor."""
    journal.LOGGER.error("%s: %r", failure.err_msg or "ignored, in", failure.object, exc_info=failure.exc_value)


async def _run(path: Path, loaded: Loaded, runtime_dir: str) -> None:
    """The agent's whole life, ended here: a thread that hangs on a dead disk must not keep the process."""
    status = await run_agent(path, loaded, runtime_dir)
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
