"""A member on a host of this machine: its configuration file and its processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hamgr.drill.base_member import BaseMember
from hamgr.drill.clocks import remove_traces
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, Process
from hamgr.drill.server import recorded_postmaster

AGENT = ("-m", "hamgr", "agent")
"""What the interpreter is told to run, before the configuration file's path."""


@dataclass(slots=True, kw_only=True)
class Member(BaseMember):
    """One database host with an agent. `guard` is what `hamgr agent FILE` became, while it runs."""

    host: Host
    python: Path
    """Runs hamgr; the host's account can read it."""
    guard: Process | None = None
    _started_pids: list[int] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return (self.disks.data.mount if self.disks else self.host.directory) / "data"

    @property
    def runtime_dir(self) -> Path:
        return self.host.directory / "run"

    @property
    def config_path(self) -> Path:
        return self.host.directory / "hamgr.yml"

    def postmaster_pid(self) -> int:
        """First line of postmaster.pid. Raises DrillError when no server is recorded there or it is dead."""
        try:
            return recorded_postmaster(self.data_dir)
        except DrillError as error:
            raise DrillError(f"{self.name}: {error}") from error

    def guard_pid(self) -> int:
        if self.guard is not None and not self.guard.ended.is_set():
            return self.guard.pid
        return self._pid_of("guard")

    def wait_until_guard_ended(self) -> None:
        if self.guard is not None and not self.guard.ended.wait(5.0):
            raise DrillError(f"{self.name}: the guard does not end")

    def agent_pid(self) -> int:
        return self._pid_of("agent")

    def _pid_of(self, part: str) -> int:
        """Guard and agent name themselves hamgr-PART and have the configuration file among their arguments."""
        config = str(self.config_path).encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_it = (process / "comm").read_bytes() == f"hamgr-{part}\n".encode()
                if is_it and config in (process / "cmdline").read_bytes().split(b"\0"):
                    return int(process.name)
            except OSError:
                continue
        raise DrillError(f"{self.name}: no running {part}")

    def start(self) -> None:
        environment = self.clock.environment if self.clock is not None else None
        self.guard = self.host.spawn([str(self.python), *AGENT, str(self.config_path)], self.log, env=environment)
        self._started_pids.append(self.guard.pid)
        with contextlib.suppress(OSError):
            # As the unit file does. Its children run as everybody else.
            os.sched_setscheduler(self.guard.pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))

    def remove_traces(self) -> None:
        """Nothing is left in the machine's shared memory of a clock of its own. For when the host has ended."""
        if self.clock is not None:
            for pid in self._started_pids:
                remove_traces(pid)

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write the member's file, readable by its account only: it holds passwords."""
        self.config_path.touch(mode=0o600)
        self.config_path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
        if self.host.account is not None:
            os.chown(self.config_path, self.host.account.uid, self.host.account.gid)
