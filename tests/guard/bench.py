"""A guard on the bench: its directories, its fake agent, its server, a client of its socket."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hamgr.guard.launch import guard_argv
from hamgr.guard.layout import SharedPage, boottime_ns

DEADLINE_S = 20.0
SECOND = 1_000_000_000
FAKE_AGENT = str(Path(__file__).with_name("fake_agent.py"))
# The postmaster, a backend in a session of its own with a child, and a helper in the postmaster's session.
TREE = "setsid $0 -c 'sleep 1000 & wait' & sleep 1000 & wait"
DEAF_TREE = "trap '' INT TERM; setsid $0 -c 'sleep 1000 & wait' & while :; do wait; done"


def wait_until(claim: Callable[[], object], what: str) -> None:
    """Return once the claim holds; AssertionError after DEADLINE_S."""
    end = time.monotonic() + DEADLINE_S
    while not claim():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.005)


def stat_fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    fields = stat_fields(pid)
    return bool(fields) and fields[0] not in "ZX"


def living(pids: list[int]) -> list[tuple[int, list[str]]]:
    """Those that can still run code of their own, with what /proc says: state, parent ... flags.

    PF_EXITING (4) among the flags: the kernel is taking it down. One with SIGKILL pending waits for a CPU to die on.
    """
    seen = [(pid, stat_fields(pid)[:7]) for pid in pids if is_alive(pid)]
    return [(pid, fields) for pid, fields in seen if fields and not int(fields[6]) & 4 and not has_kill_pending(pid)]


def has_kill_pending(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return True
    masks = [int(line.split()[1], 16) for line in status if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in masks)


def start_ticks(pid: int) -> int:
    return int(stat_fields(pid)[19])


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(found) for child in children for found in (child, *descendants(int(child)))]


class Bench:
    """One guard and what is around it. `run` may be called again after the guard's death."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime_dir = root / "run"
        self.data_dir = root / "data"
        for directory in (self.runtime_dir, self.data_dir):
            directory.mkdir()
        self.postgres = str(root / "postgres")
        shutil.copy("/bin/bash", self.postgres)
        self.guard: subprocess.Popen[bytes] | None = None
        self.page: SharedPage
        self.client: socket.socket
        self.to_end: list[int] = []
        self.stderr = (root / "stderr").open("ab")

    def argv(
        self,
        *agent: str,
        agent_timeout_s: float = 1,
        stop_timeout_s: float = 10,
        watchdog: tuple[int, str] | None = None,
        is_stand_in: bool = False,
    ) -> list[str]:
        return guard_argv(
            str(self.runtime_dir),
            str(self.data_dir),
            [sys.executable, FAKE_AGENT, *agent],
            agent_timeout_s=agent_timeout_s,
            stop_timeout_s=stop_timeout_s,
            kill_budget_s=0.2,
            watchdog=watchdog,
            is_stand_in=is_stand_in,
        )

    def launch(self, *agent: str, **settings: Any) -> subprocess.Popen[bytes]:
        self.guard = subprocess.Popen(self.argv(*agent, **settings), stderr=self.stderr)
        return self.guard

    def run(self, *agent: str, **settings: Any) -> None:
        """Launch, connect and wait for the agent's first heartbeat."""
        guard = self.launch(*agent, **settings)
        wait_until((self.runtime_dir / "guard.page").exists, "the page is there")
        self.open_page()
        wait_until(lambda: self.page.guard_pid == guard.pid, "the guard is up")
        self.client = self.connect()
        wait_until(lambda: self.page.agent_heartbeat_ns, "the agent beats")
        self.to_end.append(self.page.agent_pid)

    def open_page(self) -> SharedPage:
        self.page = SharedPage.open(str(self.runtime_dir))
        return self.page

    def run_stand_in(self, *agent: str, **settings: Any) -> None:
        """The guard dies and a stand-in takes its place, as by the agent; it is connected to."""
        assert self.guard is not None
        self.guard.kill()
        self.guard.wait()
        argv = self.argv(*agent, is_stand_in=True, **settings)
        assert subprocess.run(argv, stderr=self.stderr, check=False).returncode == 0
        wait_until(lambda: self.page.guard_pid != self.guard.pid, "the stand-in guards")
        self.to_end.append(self.page.guard_pid)
        self.client = self.connect()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def connected() -> bool:
            try:
                # Blocking: a connect with a time limit does not wait for room in the guard's backlog (EAGAIN).
                client.connect(str(self.runtime_dir / "guard.sock"))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True

        wait_until(connected, "the socket listens")
        client.settimeout(DEADLINE_S)
        return client

    def ask(self, *fields: str) -> list[str]:
        self.client.send("\0".join(fields).encode())
        return self.answer()

    def kill(self) -> int:
        """Have the guard fence; how many processes it killed."""
        kind, count = self.told("kill")
        assert kind == "killed"
        return int(count)

    def told(self, *fields: str) -> list[str]:
        """The answer to a command; notices of exits may come first."""
        answer = self.ask(*fields)
        while answer[0] == "exited":
            answer = self.answer()
        return answer

    def answer(self) -> list[str]:
        return self.client.recv(65536).decode().split("\0")

    def start_server(self, script: str = TREE, size: int = 4) -> list[int]:
        """Have the guard start a fake server and wait until it has `size` processes; postmaster first."""
        kind, pid, ticks = self.told("start", self.postgres, "-c", script, self.postgres)
        assert kind == "started"
        assert int(ticks) == start_ticks(int(pid))
        wait_until(lambda: len(descendants(int(pid))) >= size - 1, "the tree is complete")
        tree = [int(pid), *descendants(int(pid))]
        self.to_end += tree
        return tree

    def arm(self, postmaster: int, in_s: float) -> None:
        self.page.arm(boottime_ns() + int(in_s * SECOND), postmaster, start_ticks(postmaster))
        assert self.ask("ping") == ["pong", str(self.page.guard_pid)]

    def said(self) -> str:
        return (self.root / "stderr").read_text()

    def wait_until_said(self, text: str) -> None:
        """The scribe has written that; the guard does not wait for it."""
        wait_until(lambda: text in self.said(), f"it says {text!r}")

    def agent_log(self) -> list[str]:
        log = self.runtime_dir / "agent.log"
        return log.read_text().splitlines() if log.exists() else []

    def end(self) -> None:
        """End all that was started, by pid."""
        if hasattr(self, "page"):
            self.to_end.append(self.page.agent_pid)
        if self.guard is not None and self.guard.poll() is None:
            self.guard.kill()
            self.guard.wait()
        if hasattr(self, "page"):
            self.to_end.append(self.page.agent_pid)
        for pid in self.to_end:
            if pid and is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.stderr.close()
