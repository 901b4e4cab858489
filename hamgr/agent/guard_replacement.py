"""A guard that died or froze is replaced by the agent, where nobody else does it in time.

The agent cannot be without one: its permit to renew ends without the guard's heartbeat. A service manager is left a
moment to start another; then a *stand-in* is started, which adopts agent and server from the page and makes room as
soon as the service manager's own guard comes up (`hamgr/guard/program.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hamgr.agent.guardlink import HEARTBEAT_FRESH_S, GuardLink
from hamgr.agent.journal import LOGGER
from hamgr.core.policy import KILL_BUDGET_S
from hamgr.core.server import ServerIdentity
from hamgr.guard.launch import guard_argv
from hamgr.postgres.process import is_alive, send, wait_until_exit
from hamgr.settings import Loaded

LOOK_S = 0.2
SUPERVISED_GRACE_S = 1.0
LAUNCH_S = 5.0
RETRY_S = 1.0
SILENT_LOOKS = round(HEARTBEAT_FRESH_S / LOOK_S)
"""So many looks in a row without a heartbeat, and the guard is frozen. Looks and not seconds: when the agent itself did
not run (a suspended host, no CPU), the silence of the guard tells nothing.
"""


def guard_command(path: Path, loaded: Loaded, *, is_stand_in: bool = False) -> list[str]:
    """The command line of this member's guard."""
    settings = loaded.settings
    ttl_s = loaded.seed.policy().ttl_s
    watchdog_timeout_s = settings.watchdog.timeout_for(ttl_s) if settings.watchdog.mode != "off" else 0
    return guard_argv(
        os.environ.get("HAMGR_RUNTIME_DIR") or settings.runtime_dir,
        settings.postgresql.data_dir,
        [sys.executable, "-m", "hamgr.agent", str(path.resolve())],
        agent_timeout_s=settings.guard.agent_timeout_for(ttl_s),
        stop_timeout_s=settings.guard.stop_timeout,
        kill_budget_s=KILL_BUDGET_S,
        watchdog=(watchdog_timeout_s, settings.watchdog.device) if watchdog_timeout_s else None,
        is_stand_in=is_stand_in,
    )


async def keep_guard(link: GuardLink, stand_in: Sequence[str]) -> None:
    """Watch the guard, for ever; where it is dead or frozen, another one runs soon. `stand_in`: its command line."""
    while True:
        guard = link.guard
        if not await _wait_until_dead_or_frozen(link, guard):
            continue
        if link.page.supervised and await _is_replaced(link, guard, SUPERVISED_GRACE_S):
            continue
        LOGGER.warning("the guard (pid %s) is dead: starting a stand-in", guard.pid)
        await asyncio.to_thread(_launch, stand_in)
        if not await _is_replaced(link, guard, RETRY_S):
            LOGGER.error("no guard: the stand-in did not come up, trying again")


async def _wait_until_dead_or_frozen(link: GuardLink, guard: ServerIdentity) -> bool:
    """True once that guard is dead, killed here if it froze; False when the page names another one."""
    ending = asyncio.ensure_future(wait_until_exit(guard))
    silent_looks, beat = 0, link.page.guard_heartbeat_ns
    try:
        while link.guard == guard:
            done, _ = await asyncio.wait({ending}, timeout=LOOK_S)
            if done:
                return True
            silent_looks = silent_looks + 1 if link.page.guard_heartbeat_ns == beat else 0
            beat = link.page.guard_heartbeat_ns
            if silent_looks == SILENT_LOOKS:
                LOGGER.error("the guard (pid %s) is frozen: killed", guard.pid)
                send(guard, signal.SIGKILL)
        return False
    finally:
        ending.cancel()


async def _is_replaced(link: GuardLink, dead: ServerIdentity, within_s: float) -> bool:
    """Another guard is there."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            # A page is memory: nothing tells of a change of it.
            while link.guard == dead or not is_alive(link.guard):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S / 10)
            return True
    return False


def _launch(argv: Sequence[str]) -> None:
    """The stand-in is on its way: this program forks it and returns. Blocks for so long."""
    try:
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, start_new_session=True, timeout=LAUNCH_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        LOGGER.error("a stand-in for the guard cannot be started: %s", error)
        return
    if ended.returncode != 0:
        LOGGER.error("a stand-in for the guard cannot be started: it exited %s", ended.returncode)
