"""The guard's one loop: deadline first, then the dead, the agent, the clients.

A turn never blocks: it reads /proc and the shared page, and talks to non-blocking descriptors. It comes round at
least every 100 ms while armed (the poll's clock does not count suspend, the deadline's does) and every 500 ms
otherwise, and each turn writes the guard's heartbeat.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself costs 0.7 MiB of enumerations
import os

from hamgr.guard.births import Births
from hamgr.guard.cgroup import ServerGroup
from hamgr.guard.commands import Clients
from hamgr.guard.events import Events
from hamgr.guard.fence import Fence
from hamgr.guard.host import ServiceManager
from hamgr.guard.keeper import SECOND, Keeper
from hamgr.guard.layout import EXIT_REFUSED_CONFIGURATION, SharedPage, boottime_ns
from hamgr.guard.orders import Orders
from hamgr.guard.processes import NOBODY, Identity, open_pidfd, send_signal
from hamgr.guard.spawn import server_environment, spawn
from hamgr.guard.watchdog import Watchdog
from hamgr.guard.words import ERROR, SCRIBE, WARNING, say

_MILLISECOND = 1_000_000
_ARMED_TURN_NS = 100 * _MILLISECOND
_IDLE_TURN_NS = 500 * _MILLISECOND
_ABSENCE_NS = SECOND
_UNKNOWN_STATUS = -1

# What the guard is doing.
_KEEPING = "keeping the agent"
_AGENT_STOPS = "waiting for the agent to stop"
_SERVER_STOPS = "waiting for the server to stop"
_LEAVING = "guarding a server that the agent left armed"
_LAST_FENCE = "fencing, then ending"


class Guard:
    """Everything the loop knows."""

    def __init__(self, page: SharedPage, orders: Orders) -> None:
        """Listens at once; starts nothing. Raises OSError when the socket cannot be made."""
        self._page = page
        self._orders = orders
        self._clients = Clients(orders.runtime_dir)
        self._manager = ServiceManager()
        page.supervised = int(self._manager.is_there)
        self._group = ServerGroup(orders.runtime_dir) if self._manager.is_there else None
        self._fence = Fence(page, orders.data_dir, self._group)
        self._keeper = Keeper(page, orders.runtime_dir, orders.agent_argv, orders.agent_timeout_ns)
        self._watchdog = Watchdog(page, orders.watchdog)
        self._events = Events()
        self._births = Births(self._events, self._on_exec)
        self._killing_for: list[int] = []
        self._agent_pidfd: int | None = None
        self._watched: Identity = NOBODY
        self._watched_pidfd: int | None = None
        self._signals: list[int] = []
        self._phase = _KEEPING
        self._phase_due_ns = 0
        self._exit_status: int | None = None
        self._last_turn_ns = boottime_ns()
        self._last_told_ns = 0
        self._rounds_due_ns = 0

    # ---- the loop

    def run(self) -> int:
        """Guard until the end; the exit status."""
        self._catch_signals()
        self._events.watch(self._clients.listener_fd, self._on_connect)
        self._agent_pidfd = self._keeper.adopt()
        if self._agent_pidfd is not None:
            self._events.watch(self._agent_pidfd, lambda _: self._on_agent_end(None))
        else:
            self._keeper.start_due_ns = boottime_ns()
        self._fence.rehearse()
        self._manager.tell("READY=1")
        while self._exit_status is None:
            self._turn()
        self._manager.tell("STOPPING=1")
        if not self._fence.server_lives():
            self._watchdog.release()
        self._clients.close()
        return self._exit_status

    def _turn(self) -> None:
        now = boottime_ns()
        absent_ns, self._last_turn_ns = now - self._last_turn_ns, now
        self._page.guard_heartbeat_ns = now
        self._mind_deadline()
        if absent_ns > _ABSENCE_NS:
            self._keeper.forgive_absence(now)
            say(f"did not run for {absent_ns / SECOND:.1f} s (suspended or starved)", WARNING)
        # Early by the part of a millisecond that poll cannot wait, rather than spinning through it.
        if self._exit_status is None and now + _MILLISECOND > self._rounds_due_ns:
            self._make_rounds(now)
        if self._exit_status is None and self._events.wait(self._pause_ms()):
            self._rounds_due_ns = 0

    def _make_rounds(self, now: int) -> None:
        """All but the deadline: after every event, and else only so often, for an idle guard costs nothing."""
        self._reap()
        if SCRIBE.keep(may_wait=not (self._page.armed or self._fence.active)):
            self._fence.rehearse()
        self._obey_signals()
        self._mind_agent(now)
        self._mind_phase(now)
        self._watch_postmaster()
        if self._manager.watchdog_ns and now - self._last_told_ns >= self._manager.watchdog_ns:
            self._last_told_ns = now
            self._manager.tell("WATCHDOG=1")
        self._rounds_due_ns = self._next_rounds_ns(now)

    def _pause_ms(self) -> int:
        """How long this turn may wait, rounded down: late is worse than early."""
        if self._fence.active:
            return self._fence.pause_ms
        now = boottime_ns()
        wake = self._rounds_due_ns
        if self._page.armed:
            wake = min(wake, now + _ARMED_TURN_NS)
            deadline_ns = self._page.deadline_ns
            if deadline_ns:
                wake = min(wake, deadline_ns - self._orders.kill_budget_ns)
        return max(0, wake - now) // _MILLISECOND

    def _next_rounds_ns(self, now: int) -> int:
        due_ns = now + _IDLE_TURN_NS
        # A millisecond more, since rounds may begin that much early.
        if self._keeper.start_due_ns is not None:
            due_ns = min(due_ns, self._keeper.start_due_ns + _MILLISECOND)
        if self._phase == _AGENT_STOPS:
            due_ns = min(due_ns, self._phase_due_ns + _MILLISECOND)
        if self._phase == _SERVER_STOPS:
            due_ns = now + 20 * _MILLISECOND
        return due_ns

    # ---- the deadline

    def _mind_deadline(self) -> None:
        """Whatever there is to say is said when the first kill is done."""
        page, is_reached = self._page, False
        if not self._fence.active and page.armed:
            deadline_ns = page.deadline_ns
            left_ns = deadline_ns - self._orders.kill_budget_ns - boottime_ns()
            is_reached = deadline_ns != 0 and left_ns < _MILLISECOND
            if is_reached:
                self._fence.begin()
        is_fenced = self._fence.active and self._fence.sweep()
        if is_reached:
            say(f"deadline of term {page.term} reached, killing the server", ERROR)
        if is_fenced:
            self._on_fenced()
        self._watchdog.mind(boottime_ns(), page.armed)

    def _on_fenced(self) -> None:
        took_ns = self._page.fenced_at_ns - self._page.fence_began_ns
        say(
            f"fenced: {self._fence.killed_count} processes killed in {took_ns / _MILLISECOND:.0f} ms, none left",
            WARNING,
        )
        asked, self._killing_for = self._killing_for, []
        for fd in asked:
            self._answer(fd, "killed", self._fence.killed_count)
        if self._phase in (_LAST_FENCE, _LEAVING):
            self._exit_status = 1

    # ---- the dead

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._births.settle(pid)
            if pid == SCRIBE.pid:
                SCRIBE.pid = 0
            elif pid == self._keeper.agent[0]:
                self._on_agent_end(os.waitstatus_to_exitcode(status))
            elif self._fence.servers.pop(pid, None) is not None:
                self._announce("exited", pid, status)

    def _watch_postmaster(self) -> None:
        """Watch the postmaster that the page names, unless it is a child, whose end comes by `_reap`."""
        told = (self._page.postmaster_pid, self._page.postmaster_start_ticks)
        if told == self._watched:
            return
        self._forget_watched()
        self._watched = told
        if told[0] not in self._fence.servers:
            self._watched_pidfd = open_pidfd(told)
            if self._watched_pidfd is not None:
                self._events.watch(self._watched_pidfd, self._on_watched_end)

    def _on_watched_end(self, _: int) -> None:
        self._forget_watched()
        self._announce("exited", self._watched[0], _UNKNOWN_STATUS)

    def _forget_watched(self) -> None:
        if self._watched_pidfd is not None:
            self._events.unwatch(self._watched_pidfd)
            os.close(self._watched_pidfd)
            self._watched_pidfd = None

    # ---- the agent

    def _mind_agent(self, now: int) -> None:
        if self._keeper.kill_if_frozen(now):
            self._on_agent_end(-signal.SIGKILL)
        due_ns = self._keeper.start_due_ns
        if due_ns is not None and now >= due_ns and self._phase == _KEEPING:
            reader = self._keeper.start()
            if reader is not None:
                self._births.expect(self._keeper.agent[0], reader, None)
        self._fence.spared = {os.getpid(), 1, self._keeper.agent[0]}

    def _on_agent_end(self, code: int | None) -> None:
        if self._agent_pidfd is not None:
            self._events.unwatch(self._agent_pidfd)
            os.close(self._agent_pidfd)
            self._agent_pidfd = None
        self._keeper.bury()
        if code is None and self._page.agent_farewell:
            code = self._page.agent_farewell - 1
        if self._phase == _AGENT_STOPS:
            if code == 0 or (code is None and not self._fence.server_lives()):
                self._leave()
            else:
                self._stop_server()
        elif self._phase == _KEEPING:
            if code == 0:
                self._leave()
            elif code == EXIT_REFUSED_CONFIGURATION and not self._fence.server_lives():
                self._exit_status = code
            else:
                self._manager.show(self._keeper.schedule(code))

    # ---- the end

    def _leave(self) -> None:
        """The agent ended in order. A server that it left armed is still bound by its deadline."""
        if not self._fence.server_lives():
            self._exit_status = 0
        elif self._page.armed and self._page.deadline_ns:
            say("agent ended and left an armed server: guarding it to its deadline", WARNING)
            self._phase = _LEAVING
        else:
            say("agent ended, the server is left running, disarmed", WARNING)
            self._exit_status = 0

    def _stop_server(self) -> None:
        self._phase = _SERVER_STOPS
        self._phase_due_ns = boottime_ns() + self._orders.stop_timeout_ns // 3
        for root in self._fence.roots():
            send_signal(root, signal.SIGINT)
            say(f"stopping the server (fast), postmaster {root[0]}", WARNING)

    def _mind_phase(self, now: int) -> None:
        if self._phase == _AGENT_STOPS and now >= self._phase_due_ns:
            self._keeper.kill(now)
            say("agent did not stop in time, killed", ERROR)
            self._stop_server()
        elif self._phase == _SERVER_STOPS and not self._fence.active:
            if not self._fence.server_lives():
                self._exit_status = 1
            elif now >= self._phase_due_ns:
                self._phase = _LAST_FENCE
                self._fence.begin()
                say("server did not stop in time, killing it", ERROR)
        elif (
            self._phase == _LEAVING and not self._fence.active and not (self._page.armed and self._fence.server_lives())
        ):
            self._exit_status = 0

    # ---- signals

    def _catch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._events.watch(reader, self._drain)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(signum, lambda number, _: self._signals.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)

    @staticmethod
    def _drain(fd: int) -> None:
        try:
            os.read(fd, 512)
        except BlockingIOError:
            return

    def _obey_signals(self) -> None:
        while self._signals:
            signum = self._signals.pop(0)
            if signum in (signal.SIGHUP, signal.SIGUSR2):
                self._keeper.forward(signum)
            elif self._phase in (_KEEPING, _LEAVING):
                self._manager.tell("STOPPING=1")
                if self._keeper.agent == NOBODY and not self._fence.server_lives():
                    self._exit_status = 0
                elif self._keeper.agent == NOBODY:
                    self._stop_server()
                else:
                    self._phase = _AGENT_STOPS
                    self._phase_due_ns = boottime_ns() + self._orders.stop_timeout_ns
                    self._keeper.forward(signal.SIGTERM)

    # ---- clients

    def _on_connect(self, _: int) -> None:
        fd = self._clients.accept()
        if fd is not None:
            self._events.watch(fd, self._on_command)

    def _on_command(self, fd: int) -> None:
        fields = self._clients.receive(fd)
        if fields is None:
            self._drop(fd)
        elif fields == ["ping"]:
            # What the agent armed before it asked is looked at before it is answered.
            self._mind_deadline()
            self._answer(fd, "pong", os.getpid())
        elif fields == ["kill"]:
            self._killing_for.append(fd)
            self._fence.begin()
        elif len(fields) == 2 and fields[0] == "status":
            self._manager.show(fields[1])
        elif fields == ["retire"]:
            self._retire(fd)
        elif fields and fields[0] == "start":
            self._start_server(fd, fields[1:])
        elif fields:
            self._answer(fd, "error", f"unknown command {fields[0][:40]!r}")

    def _start_server(self, fd: int, argv: list[str]) -> None:
        # Between the arming and this the deadline may have come, and found no server to kill.
        self._mind_deadline()
        if not argv or not os.path.isabs(argv[0]):
            self._answer(fd, "error", "start takes an absolute path and arguments")
        elif self._fence.active:
            self._answer(fd, "error", "a fence is under way")
        elif self._page.is_spent:
            self._answer(fd, "error", "the deadline that it was armed for has passed")
        else:
            try:
                pid, reader = spawn(
                    argv, server_environment(), self._fence.note_server, self._orders.data_dir, self._group
                )
            except OSError as error:
                self._answer(fd, "error", f"cannot fork: {error.strerror}")
                return
            self._births.expect(pid, reader, fd)

    def _on_exec(self, pid: int, complaint: str, asked_by: int | None) -> None:
        """The program runs, or never will."""
        if asked_by is None:
            if complaint:
                say(complaint, ERROR)
        elif complaint:
            self._fence.servers.pop(pid, None)
            self._answer(asked_by, "error", complaint)
        else:
            self._answer(asked_by, "started", *self._fence.servers[pid])

    def _retire(self, fd: int) -> None:
        """A stand-in ends at once and touches nothing: whoever asked takes the lock, and adopts agent and server."""
        if not self._orders.is_stand_in:
            self._answer(fd, "error", "not a stand-in")
        elif self._phase != _KEEPING or self._fence.active or self._births.are_pending:
            self._answer(fd, "error", "busy")
        else:
            say("a stand-in's work is over: making room for the guard that was started")
            # The agent leaves whoever asked the time to take over.
            self._page.supervised = 1
            self._answer(fd, "retiring")
            self._exit_status = 0

    def _answer(self, fd: int, *fields: object) -> None:
        if not self._clients.send(fd, *fields):
            self._drop(fd)

    def _announce(self, *fields: object) -> None:
        for fd in self._clients.connected():
            self._answer(fd, *fields)

    def _drop(self, fd: int) -> None:
        self._events.unwatch(fd)
        self._clients.drop(fd)
        self._killing_for = [other for other in self._killing_for if other != fd]
        self._births.forget_client(fd)
