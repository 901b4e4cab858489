"""Hosts of a drill: a name, an address, and power over everything that runs there.

Two kinds: *loopback* hosts share 127.0.0.1 and differ by their ports (no root needed); *netns* hosts have a
network namespace with an address of their own each (root), so that they can be cut off like machines. Either
way all programs of a host are descendants of its subreaper.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamgr.drill import subreaper
from hamgr.drill.accounts import Account, own
from hamgr.drill.errors import DrillError
from hamgr.drill.machine import Machine

_ANSWER_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Process:
    """A program that a host was told to run. `ended` is set when its subreaper has reaped it."""

    pid: int
    argv: tuple[str, ...]
    log: Path
    ended: threading.Event = field(default_factory=threading.Event)
    status: int | None = None
    """Wait status as of waitpid(2), once ended."""
    ended_ns: int = 0
    """CLOCK_MONOTONIC."""

    def send(self, number: int) -> None:
        """Send a signal; a process that has ended is left alone."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Host(Machine):
    """One host. Made by `loopback_hosts` or by `hamgr.drill.network.Network`."""

    def __init__(self, name: str, address: str, directory: Path, account: Account | None, netns: bool) -> None:
        super().__init__(name, address)
        self.directory = directory
        self.account = account
        self.is_netns = netns
        self.processes: dict[int, Process] = {}
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._early_exits: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._reaper = _start_subreaper(netns)
        self.pid = self._reaper.pid
        """Of the subreaper, which is where the host's network namespace is found too."""
        self._ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, name=f"host-{name}", daemon=True)
        self._listener.start()
        # Not before it has moved into its network namespace.
        if not self._ready.wait(_ANSWER_TIMEOUT_S):
            raise DrillError(f"host {name} did not start")

    def spawn(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        as_account: bool = True,
    ) -> Process:
        """Start a program in a session of its own, as the host's account unless told otherwise.

        Its environment is small and fixed: nothing of the caller's PG* or proxy variables reaches a server.
        Raises DrillError when it cannot be executed.
        """
        account = self.account if as_account else None
        answer = self._ask(
            do="spawn",
            argv=list(argv),
            log=str(log),
            cwd=str(cwd or self.directory),
            env={**_plain_environment(self.directory), **(env or {})},
            uid=None if account is None else account.uid,
            gid=None if account is None else account.gid,
        )
        if "pid" not in answer:
            raise DrillError(f"{self.name}: cannot run {argv[0]}: {answer.get('error', 'no answer')}")
        process = Process(answer["pid"], tuple(argv), log)
        with self._news:
            self.processes[process.pid] = process
            early = self._early_exits.pop(process.pid, None)
        if early is not None:
            self._note_exit(early)
        return process

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, as_account: bool = True) -> str:
        log = self.directory / f"run-{next(self._ids)}.log"
        process = self.spawn(argv, log, as_account=as_account)
        ended = process.ended.wait(timeout_s)
        output = log.read_text(errors="replace")
        log.unlink()
        if not ended or process.status != 0:
            process.send(signal.SIGKILL)
            raise DrillError(f"{self.name}: {' '.join(argv)} failed ({process.status}): {output.strip()}")
        return output

    def kill_all(self) -> int:
        return int(self._ask(do="signal_all", signal=int(signal.SIGKILL))["count"])

    def freeze_all(self) -> None:
        self._ask(do="signal_all", signal=int(signal.SIGSTOP))

    def thaw_all(self) -> None:
        self._ask(do="signal_all", signal=int(signal.SIGCONT))

    def keep(self) -> None:
        """Let the host outlive this process; SIGTERM to `pid` ends it."""
        self._ask(do="keep")

    def close(self) -> None:
        """End the host with everything on it. Idempotent."""
        if self._reaper.stdin is not None:
            with contextlib.suppress(OSError):
                self._reaper.stdin.close()
        self._reaper.wait(timeout=_ANSWER_TIMEOUT_S)
        self._listener.join(timeout=_ANSWER_TIMEOUT_S)

    def _ask(self, **request: Any) -> dict[str, Any]:
        number = next(self._ids)
        assert self._reaper.stdin is not None
        with self._news:
            try:
                self._reaper.stdin.write(json.dumps({"id": number, **request}).encode() + b"\n")
                self._reaper.stdin.flush()
            except (OSError, ValueError) as error:
                raise DrillError(f"host {self.name} is gone: {error}") from error
            if not self._news.wait_for(lambda: number in self._answers, _ANSWER_TIMEOUT_S):
                raise DrillError(f"host {self.name} does not answer")
            return self._answers.pop(number)

    def _listen(self) -> None:
        assert self._reaper.stdout is not None
        for line in self._reaper.stdout:
            message = json.loads(line)
            if "exited" in message:
                self._note_exit(message)
            elif "id" in message:
                with self._news:
                    self._answers[message["id"]] = message
                    self._news.notify_all()
            elif "ready" in message:
                self._ready.set()

    def _note_exit(self, notice: dict[str, Any]) -> None:
        with self._news:
            process = self.processes.pop(notice["exited"], None)
            if process is None:
                # An orphan, or a program that ended before the answer to `spawn` was read.
                self._early_exits[notice["exited"]] = notice
                return
        process.status = notice["status"]
        process.ended_ns = notice["at_ns"]
        process.ended.set()


def _start_subreaper(netns: bool) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-I", "-S", subreaper.__file__]
    return subprocess.Popen(
        argv + (["--netns"] if netns else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )


def _plain_environment(directory: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(directory),
        "PYTHONUNBUFFERED": "1",
    }


def loopback_hosts(names: Sequence[str], directory: Path, account: Account | None) -> dict[str, Host]:
    """Hosts that share 127.0.0.1. Each gets its own directory below `directory`."""
    return {name: Host(name, "127.0.0.1", own(directory / name, account), account, netns=False) for name in names}


def wait_until_all_ended(processes: Sequence[Process], timeout_s: float) -> bool:
    """Wait until each was reaped; False if the time (a duration, CLOCK_MONOTONIC) was not enough."""
    deadline = time.monotonic() + timeout_s
    return all(process.ended.wait(max(0.0, deadline - time.monotonic())) for process in processes)
