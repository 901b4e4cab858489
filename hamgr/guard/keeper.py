"""Keeps one agent alive: starts, adopts, sees that it froze, backs off when it dies in a loop."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself costs 0.7 MiB of enumerations
import os

from hamgr.guard.layout import EXIT_REPLACE_ME, SharedPage, boottime_ns
from hamgr.guard.processes import (
    NOBODY,
    Identity,
    lives,
    open_pidfd,
    read_process,
    send_signal,
    session_members,
)
from hamgr.guard.spawn import agent_environment, spawn
from hamgr.guard.words import ERROR, INFO, WARNING, say

SECOND = 1_000_000_000
_SHORT_LIFE_NS = 5 * SECOND
_FIRST_HEARTBEAT_NS = 15 * SECOND
_UNREAPABLE_NS = SECOND
_LONGEST_BACK_OFF_NS = 2 * SECOND


def back_off_ns(short_lives: int) -> int:
    """Delay before the next start, after that many short lives in a row: 0, 0.1 s, 0.2 s ... 2 s."""
    if short_lives <= 1:
        return 0
    return min(_LONGEST_BACK_OFF_NS, SECOND // 10 << min(short_lives - 2, 8))


class Keeper:
    """The agent under the guard. `agent` is NOBODY while none runs; then `start_due_ns` says when one will."""

    __slots__ = (
        "_argv",
        "_awake_since_ns",
        "_killed_ns",
        "_page",
        "_runtime_dir",
        "_short_lives",
        "_started_ns",
        "_timeout_ns",
        "agent",
        "start_due_ns",
    )

    def __init__(self, page: SharedPage, runtime_dir: str, argv: list[str], timeout_ns: int) -> None:
        self._page = page
        self._runtime_dir = runtime_dir
        self._argv = argv
        self._timeout_ns = timeout_ns
        self.agent: Identity = NOBODY
        self.start_due_ns: int | None = None
        self._started_ns = 0
        self._awake_since_ns = 0
        self._killed_ns = 0
        self._short_lives = 0

    def adopt(self) -> int | None:
        """The pidfd of the agent that a dead guard left, None when there is none."""
        told = (self._page.agent_pid, self._page.agent_start_ticks)
        pidfd = open_pidfd(told) if lives(told) else None
        if pidfd is not None:
            self.agent = told
            self._started_ns = told[1] * SECOND // os.sysconf("SC_CLK_TCK")
            self._awake_since_ns = boottime_ns()
            say(f"adopted agent {told[0]}")
        return pidfd

    def start(self) -> int | None:
        """Start one; the pipe that tells of its exec, None when it could not be forked (then it is due again)."""
        now = boottime_ns()
        self.start_due_ns = None
        self._killed_ns = 0
        try:
            _, reader = spawn(self._argv, agent_environment(self._runtime_dir), self._note)
        except OSError as error:
            say(f"cannot fork an agent: {error.strerror}", ERROR)
            self.start_due_ns = now + SECOND
            return None
        self._started_ns = self._awake_since_ns = now
        return reader

    def _note(self, pid: int) -> None:
        process = read_process(pid)
        self.agent = process.identity if process else (pid, 0)
        if self._page.agent_pid:
            self._page.agent_restarts += 1
        self._page.agent_start_ticks = self.agent[1]
        self._page.agent_pid = pid

    def forgive_absence(self, now: int) -> None:
        """The guard itself did not run (suspended host, starved): count the agent's silence anew."""
        self._awake_since_ns = now

    def kill_if_frozen(self, now: int) -> bool:
        """SIGKILL an agent whose heartbeat stopped. True when it is dead for good but cannot be reaped."""
        if self.agent == NOBODY:
            return False
        if self._killed_ns:
            # Its threads hang in the kernel: no more user code, yet no exit either, perhaps for hours.
            return now - self._killed_ns > _UNREAPABLE_NS and not lives(self.agent)
        heartbeat = self._page.agent_heartbeat_ns
        if heartbeat > self._started_ns:
            silent_ns, allowed_ns = now - max(heartbeat, self._awake_since_ns), self._timeout_ns
        else:
            silent_ns, allowed_ns = now - max(self._started_ns, self._awake_since_ns), _FIRST_HEARTBEAT_NS
        if silent_ns > allowed_ns:
            self.kill(now)
            say(f"agent {self.agent[0]} is frozen: no heartbeat for {silent_ns / SECOND:.1f} s, killed", WARNING)
        return False

    def kill(self, now: int) -> None:
        """SIGKILL the agent; its end comes as any other."""
        self._killed_ns = now
        send_signal(self.agent, signal.SIGKILL)

    def forward(self, signum: int) -> None:
        """Pass a signal on to the agent."""
        if self.agent != NOBODY:
            send_signal(self.agent, signum)

    def bury(self) -> None:
        """The agent has ended: end what it left in its session (a half-done pg_rewind beside a new one)."""
        for process in session_members(self.agent[0]):
            send_signal(process.identity, signal.SIGKILL)
        self.agent = NOBODY

    def schedule(self, code: int | None) -> str:
        """Set when the next one starts; how the last one ended. `code`: negative = by signal, None = unknown."""
        now = boottime_ns()
        if code == EXIT_REPLACE_ME:
            self._short_lives, delay_ns = 0, 0
        else:
            short = now - self._started_ns < _SHORT_LIFE_NS
            self._short_lives = self._short_lives + 1 if short else 1
            delay_ns = back_off_ns(self._short_lives)
        self.start_due_ns = now + delay_ns
        how = "ended in an unknown way" if code is None else f"died of signal {-code}" if code < 0 else f"exited {code}"
        news = f"agent {how}, next one " + (f"in {delay_ns / SECOND:.1f} s" if delay_ns else "at once")
        say(news, INFO if code == EXIT_REPLACE_ME else WARNING)
        return news
