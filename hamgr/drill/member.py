"""One member of the cluster under drill: its configuration file, its processes, and what it says of itself."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import requests
import yaml

from hamgr.drill.client import conninfo
from hamgr.drill.clocks import WallClock, remove_traces
from hamgr.drill.disks import Disk
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, Process
from hamgr.drill.server import Standing, recorded_postmaster, standing_of

AGENT = ("-m", "hamgr", "agent")
"""What the interpreter is told to run, before the configuration file's path."""

_CONFIG_TIMEOUT_S = 10.0
_REST_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class MemberDisks:
    """Disks of one member alone: for the data directory, for WAL, and one for whatever a session writes elsewhere."""

    data: Disk
    wal: Disk
    spare: Disk


@dataclass(slots=True)
class Member:
    """One database host with an agent. `guard` is what `hamgr agent FILE` became, while it runs."""

    name: str
    host: Host
    rest_port: int
    postgres_port: int
    password: str
    log: Path
    guard: Process | None = None
    clock: WallClock | None = None
    """Of its own, where the plan gives it one."""
    disks: MemberDisks | None = None
    _started_pids: list[int] = field(default_factory=list)

    @property
    def rest_url(self) -> str:
        return f"http://{self.host.address}:{self.rest_port}"

    @property
    def dsn(self) -> str:
        """libpq's connection string, without the password."""
        return conninfo(self.host.address, self.postgres_port)

    @property
    def data_dir(self) -> Path:
        return (self.disks.data.mount if self.disks else self.host.directory) / "data"

    @property
    def runtime_dir(self) -> Path:
        return self.host.directory / "run"

    @property
    def config_path(self) -> Path:
        return self.host.directory / "hamgr.yml"

    def get(self, path: str) -> requests.Response | None:
        """Answer of the member's REST, whatever its code; None when there is none within a second."""
        try:
            return requests.get(f"{self.rest_url}{path}", timeout=_REST_TIMEOUT_S)
        except requests.RequestException:
            return None

    def says(self) -> dict[str, Any]:
        """Body of GET /patroni; empty when there is no proper answer."""
        answer = self.get("/patroni")
        try:
            body = answer.json() if answer is not None else {}
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    def set_parameter(self, name: str, value: str | None) -> None:
        """The cluster's servers have that PostgreSQL parameter (None: its default), this one with certainty.

        Raises DrillError if the configuration is refused or not in force here within ten seconds.
        """
        patch = {"postgresql": {"parameters": {name: value}}}
        try:
            answer = requests.patch(f"{self.rest_url}/config", json=patch, timeout=_CONFIG_TIMEOUT_S)
        except requests.RequestException as error:
            raise DrillError(f"PATCH /config to {self.name}: {error}") from error
        if answer.status_code != 200:
            raise DrillError(f"{self.name} refused {name}: {answer.status_code} {answer.text}")
        deadline = time.monotonic() + _CONFIG_TIMEOUT_S
        while self._shows(name) != (value or ""):
            if time.monotonic() > deadline:
                raise DrillError(f"{self.name} does not have {name} = {value!r} in force; see {self.log}")
            time.sleep(0.05)

    def _shows(self, name: str) -> str | None:
        try:
            with psycopg.connect(self.dsn, password=self.password, autocommit=True) as connection:
                row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        except psycopg.Error:
            return None
        return str(row[0]) if row is not None else None

    def is_leader(self) -> bool:
        """Whether GET /primary answers 200."""
        answer = self.get("/primary")
        return answer is not None and answer.status_code == 200

    def is_in_place(self) -> bool:
        """By its own REST: the leader, or a replica that streams."""
        body = self.says()
        streams = "streaming" in (body.get("replication_state"), body.get("state"))
        return (body.get("role") == "replica" and streams) or self.is_leader()

    def standing(self) -> Standing | None:
        """By SQL; None when the server does not answer."""
        return standing_of(self.dsn, self.password)

    def postmaster_pid(self) -> int:
        """First line of postmaster.pid. Raises DrillError when no server is recorded there or it is dead."""
        try:
            return recorded_postmaster(self.data_dir)
        except DrillError as error:
            raise DrillError(f"{self.name}: {error}") from error

    def guard_pid(self) -> int:
        """Of the process that was started as `hamgr agent FILE`, or of the one that took its place.

        Raises DrillError when there is none.
        """
        if self.guard is not None and not self.guard.ended.is_set():
            return self.guard.pid
        return self._pid_of("guard")

    def has_guard(self) -> bool:
        """Whether a guard of this member runs, whoever started it."""
        try:
            return self.guard_pid() > 0
        except DrillError:
            return False

    def wait_until_guard_ended(self) -> None:
        """The guard that was started is gone. Raises DrillError after five seconds."""
        if self.guard is not None and not self.guard.ended.wait(5.0):
            raise DrillError(f"{self.name}: the guard does not end")

    def agent_pid(self) -> int:
        """The agent of this member, whoever is its parent by now. Raises DrillError when there is none just now."""
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

    def start(self, python: Path) -> None:
        """Start guard, agent and, through them, the server; returns at once."""
        environment = self.clock.environment if self.clock is not None else None
        self.guard = self.host.spawn([str(python), *AGENT, str(self.config_path)], self.log, env=environment)
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
