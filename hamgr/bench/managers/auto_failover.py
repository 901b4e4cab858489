"""pg_auto_failover under test, from Debian's packages: a monitor on a host of its own, synchronous as it comes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from hamgr.bench.managers.manager import (
    INITDB_OPTIONS,
    NODES,
    SERVER_PARAMETERS,
    Authority,
    Ground,
    Manager,
    Node,
    Undo,
)
from hamgr.drill.accounts import own
from hamgr.drill.errors import DrillError
from hamgr.drill.freezing import title_of
from hamgr.drill.hosts import Host, Process
from hamgr.drill.programs import postgres_bin_dir
from hamgr.drill.subreaper import descendants

MONITOR_HOST = "monitor"

_CREATE_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 60.0
_SWITCHOVER_TIMEOUT_S = 90.0
_KEEPER = "pg_autoctl: node active"
"""How the process that decides on a node calls itself."""

_UNRESTFUL = """
SELECT nodename || ' is ' || reportedstate || ', to become ' || goalstate FROM pgautofailover.node
 WHERE reportedstate <> goalstate OR reportedstate NOT IN ('primary', 'secondary')
 ORDER BY nodename
"""


@dataclass(frozen=True, slots=True)
class Timings:
    """What a variant sets, by the names of the product's manual; empty: its defaults."""

    monitor: Mapping[str, int]
    """Parameters of the monitor's server, without their prefix, in ms (retries: a number)."""
    node: Mapping[str, int]
    """Options of section `timeout` of each node's file, in s."""
    server: Mapping[str, str]
    """Parameters of each node's server."""


@dataclass(slots=True)
class Programs:
    """What runs on a host: pg_autoctl and PostgreSQL's own, with the environment that both need there."""

    host: Host
    logs: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{postgres_bin_dir()}:/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": str(self.host.directory),
        }

    def run(self, *argv: str, timeout_s: float = _CREATE_TIMEOUT_S) -> str:
        """Run a program to its end; its output is kept in the logs, too. Raises DrillError unless it exits with 0."""
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        output = self.host.run(["env", *settings, *argv], timeout_s=timeout_s)
        with (self.logs / f"{self.host.name}-commands.log").open("a") as log:
            log.write(f"$ {' '.join(argv)}\n{output}")
        return output

    def spawn(self, log: Path, *argv: str) -> Process:
        return self.host.spawn(argv, log, env=self.environment)

    def initdb(self, data_dir: Path) -> None:
        """A data directory whose superuser is the one that the client uses, for connections without passwords."""
        self.run("initdb", "-D", str(data_dir), "-U", "postgres", "-A", "trust", *INITDB_OPTIONS)


def append_settings(data_dir: Path, parameters: Mapping[str, str | int], subnet: str) -> None:
    """At the end of the server's files, where they win over what pg_autoctl writes at their beginning."""
    with (data_dir / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{name} = '{value}'\n" for name, value in parameters.items())
    with (data_dir / "pg_hba.conf").open("a") as hba:
        hba.write(f"host all all {subnet} trust\nhost replication all {subnet} trust\n")


class Monitor(Authority):
    """The monitor: pg_autoctl and a server whose extension decides for all nodes."""

    def __init__(self, ground: Ground, timings: Timings) -> None:
        self.host = ground.hosts[MONITOR_HOST]
        self.hosts: Sequence[Host] = [self.host]
        self._ground, self._timings = ground, timings
        self._programs = Programs(self.host, ground.logs)
        self._data_dir = self.host.directory / "data"
        self._log = ground.logs / f"{MONITOR_HOST}.log"
        self._port = ground.port()
        self._process: Process | None = None

    @property
    def uri(self) -> str:
        """For the nodes."""
        return f"postgres://autoctl_node@{self.host.address}:{self._port}/pg_auto_failover?sslmode=prefer"

    def create(self) -> None:
        """Make the monitor and start it; true on return: it answers. Raises DrillError."""
        self._programs.initdb(self._data_dir)
        prefixed = {f"pgautofailover.{name}": value for name, value in self._timings.monitor.items()}
        append_settings(self._data_dir, {**_QUIET_SERVER, **prefixed}, self._ground.subnet)
        where = ["--hostname", self.host.address, "--pgport", str(self._port)]
        self._programs.run("pg_autoctl", "create", "monitor", *self._at, *where, *_OPEN)
        self._start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise DrillError(f"the monitor does not answer; see {self._log}")
            time.sleep(0.1)

    def freeze(self) -> Undo:
        self.host.freeze_all()
        return self.host.thaw_all

    def kill_leader(self) -> Undo:
        self.host.kill_all()
        return self._start

    def pids(self) -> list[int]:
        return [] if self._process is None else [self._process.pid, *descendants(self._process.pid)]

    def counters(self) -> Mapping[str, float]:
        """WAL that the monitor's server has written, in bytes."""
        return {"monitor_wal_bytes": float(self._ask("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0])}

    def restlessness(self) -> str:
        """What the nodes still have to become; empty: nothing."""
        try:
            known = int(self._ask("SELECT count(*) FROM pgautofailover.node")[0])
            unrestful = self._ask(_UNRESTFUL)
        except DrillError as error:
            return str(error)
        return unrestful[0] if unrestful else "" if known == len(NODES) else f"{known} nodes"

    @property
    def _at(self) -> list[str]:
        return ["--pgdata", str(self._data_dir)]

    def _start(self) -> None:
        self._process = self._programs.spawn(self._log, "pg_autoctl", "run", *self._at)

    def _answers(self) -> bool:
        with contextlib.suppress(DrillError):
            return bool(self._ask("SELECT 1 FROM pg_extension WHERE extname = 'pgautofailover'"))
        return False

    def _ask(self, query: str) -> list[str]:
        """First column of all rows."""
        dsn = f"host={self.host.address} port={self._port} user=postgres dbname=pg_auto_failover connect_timeout=2"
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                return [str(row[0]) for row in connection.execute(query.encode()).fetchall()]
        except psycopg.Error as error:
            raise DrillError(f"monitor: {error}") from error


@dataclass(slots=True, kw_only=True)
class AutoFailoverNode(Node):
    """A node under `pg_autoctl run`, which has a keeper and the server as children."""

    programs: Programs

    @property
    def further_logs(self) -> Sequence[Path]:
        return [self.data_dir / "startup.log"]

    @property
    def at(self) -> list[str]:
        return ["--pgdata", str(self.data_dir)]

    def start(self) -> None:
        self.process = self.programs.spawn(self.log, "pg_autoctl", "run", *self.at)

    def agent_pids(self) -> list[int]:
        """The keeper; its parent starts another when it has died."""
        keepers = [pid for pid in self.manager_pids() if _KEEPER in title_of(pid)]
        if not keepers:
            raise DrillError(f"{self.name}: no keeper runs")
        return keepers


class AutoFailover(Manager):
    """One formation of three nodes."""

    def __init__(self, ground: Ground, timings: Timings) -> None:
        auto_failover_program()
        self.ground = ground
        self.timings = timings
        self._monitor = Monitor(ground, timings)
        self.authority = self._monitor
        self._nodes = [
            AutoFailoverNode(
                name=name,
                host=ground.hosts[name],
                postgres_port=ground.port(),
                password=ground.password,
                log=ground.logs / f"{name}.log",
                disk=ground.disks.get(name),
                programs=Programs(ground.hosts[name], ground.logs),
            )
            for name in NODES
        ]
        self.nodes = self._nodes

    def form(self) -> None:
        self._monitor.create()
        first, *others = self._nodes
        own(first.data_dir.parent, self.ground.account)
        first.programs.initdb(first.data_dir)
        parameters = {**SERVER_PARAMETERS, **_QUIET_SERVER, **self.timings.server}
        append_settings(first.data_dir, parameters, self.ground.subnet)
        for node in (first, *others):
            self._create(node)
            node.start()
            self._wait_until_it_answers(node)

    def switch_over(self, primary: Node) -> None:
        programs = Programs(primary.host, self.ground.logs)
        at = ["--pgdata", str(primary.data_dir)]
        programs.run("pg_autoctl", "perform", "switchover", *at, timeout_s=_SWITCHOVER_TIMEOUT_S)

    def restlessness(self) -> str:
        return self._monitor.restlessness()

    def _create(self, node: AutoFailoverNode) -> None:
        """Register the node; true on return: its data directory is there, copied from the first one's if need be."""
        where = ["--hostname", node.host.address, "--pgport", str(node.postgres_port), "--name", node.name]
        who = ["--username", "postgres", "--dbname", "postgres", "--monitor", self._monitor.uri]
        node.programs.run("pg_autoctl", "create", "postgres", *node.at, *where, *who, *_OPEN)
        for name, seconds in self.timings.node.items():
            node.programs.run("pg_autoctl", "config", "set", *node.at, f"timeout.{name}", str(seconds))

    def _wait_until_it_answers(self, node: Node) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while node.standing() is None:
            if time.monotonic() > deadline:
                raise DrillError(f"{node.name}: postgres does not answer; see {node.log}")
            time.sleep(0.1)


_OPEN = ("--auth", "trust", "--no-ssl")
"""No passwords and no encryption, as everywhere in these networks of one machine."""

_QUIET_SERVER: Mapping[str, str | int] = {
    "shared_buffers": "64MB",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_statement": "none",
    "log_lock_waits": "off",
}
"""pg_autoctl gives a server a quarter of the machine's memory, and a log file of its own."""


def auto_failover_program() -> str:
    """pg_autoctl. Raises DrillError where it is not installed."""
    program = shutil.which("pg_autoctl", path="/usr/local/bin:/usr/bin:/bin")
    if program is None:
        raise DrillError("pg_auto_failover is not installed (Debian: apt install pg-auto-failover-cli)")
    return program


def auto_failover_version() -> str:
    """Of pg_autoctl. Raises DrillError where it is not installed."""
    program = auto_failover_program()
    try:
        ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DrillError(f"{program} --version: {error}") from error
    return ran.stdout.partition("\n")[0].rpartition(" ")[2]
