"""What stands before a real cluster: a PgBouncer and an HAProxy on the client's host, and pgbench coming through."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import requests

from hamgr.drill.accounts import own
from hamgr.drill.cluster import Cluster
from hamgr.drill.hosts import Process
from hamgr.drill.member import Member
from hamgr.drill.network import free_port
from hamgr.drill.programs import postgres_bin_dir
from tests.cluster.bench import log_of, settings_of, sql, wait_until

ADMIN = "pgbouncer"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHECK_EVERY_MS = 500
"""Of HAProxy, as the README has it."""


def missing_packages() -> list[str]:
    """Debian's packages that this needs and that are not there."""
    missing = [name for name in ("pgbouncer", "haproxy") if shutil.which(name, path=PATH) is None]
    return missing if (postgres_bin_dir() / "pgbench").exists() else [*missing, "pgbench"]


class Frontage:
    """Both run from `start` to `stop`. Which of them the members know of is said by `tell`."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.host = cluster.client_host
        self.directory = own(directory, self.host.account)
        taken: set[int] = set()
        ports = [free_port("127.0.0.1", taken) for _ in range(3)]
        self.pool_port, self.balancer_port, self.runtime_port = ports
        self.target = self.directory / "target.ini"
        self._before = {member.name: settings_of(member) for member in cluster.members}
        self._pgbouncer: Process | None = None
        self._haproxy: Process | None = None

    # -- the programs ------------------------------------------------------------------------------------------

    def start(self, *, through_haproxy: bool) -> None:
        """Both answer. PgBouncer leads to HAProxy, or to where the target file says, which is the leader by now."""
        leader = self.cluster.need_leader()
        address = (self.host.address, self.balancer_port) if through_haproxy else _address_of(leader)
        self._write(self.target, f"[databases]\n* = host={address[0]} port={address[1]}\n")
        self._write(self.directory / "users", f'"{ADMIN}" "{self.password}"\n"postgres" "{self.password}"\n')
        self._write(self.directory / "pgbouncer.ini", self._pgbouncer_ini())
        self._write(self.directory / "haproxy.cfg", self._haproxy_cfg())
        self.start_haproxy()
        self.start_pgbouncer()

    def start_pgbouncer(self) -> None:
        """It answers."""
        program = shutil.which("pgbouncer", path=PATH)
        assert program is not None
        argv = [program, "-q", str(self.directory / "pgbouncer.ini")]
        self._pgbouncer = self.host.spawn(argv, self.directory / "pgbouncer.out")
        wait_until("PgBouncer answers", lambda: self.admin("SHOW VERSION"))

    def start_haproxy(self) -> None:
        """It has found out who leads."""
        program = shutil.which("haproxy", path=PATH)
        assert program is not None
        argv = [program, "-db", "-f", str(self.directory / "haproxy.cfg")]
        self._haproxy = self.host.spawn(argv, self.directory / "haproxy.out")
        leader = self.cluster.need_leader().name
        wait_until("HAProxy knows the leader", lambda: self.routed_to() == [leader])

    def stop_pgbouncer(self) -> None:
        self._end(self._pgbouncer)

    def stop_haproxy(self) -> None:
        self._end(self._haproxy)

    def stop(self) -> None:
        """Neither runs, and the members have forgotten them."""
        self.tell()
        self.stop_pgbouncer()
        self.stop_haproxy()

    def _end(self, process: Process | None) -> None:
        if process is not None:
            process.send(signal.SIGKILL)
            assert process.ended.wait(10)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o644)

    def _pgbouncer_ini(self) -> str:
        settings = {
            "listen_addr": self.host.address,
            "listen_port": self.pool_port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self.directory / "users",
            "admin_users": ADMIN,
            "pool_mode": "transaction",
            "default_pool_size": 20,
            "server_login_retry": 1,
            "logfile": self.directory / "pgbouncer.log",
        }
        lines = [f"{key} = {value}\n" for key, value in settings.items()]
        return "".join(["[pgbouncer]\n", *lines, f"%include {self.target}\n"])

    def _haproxy_cfg(self) -> str:
        servers = "".join(
            f"    server {member.name} {member.host.address}:{member.postgres_port} check port {member.rest_port}\n"
            for member in self.cluster.members
        )
        return (
            f"global\n    stats socket ipv4@{self.host.address}:{self.runtime_port} level admin\n"
            "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 30m\n    timeout server 30m\n"
            "    timeout check 1s\n"
            f"    default-server inter {CHECK_EVERY_MS}ms fall 2 rise 1 on-marked-down shutdown-sessions\n"
            f"listen primary\n    bind {self.host.address}:{self.balancer_port}\n"
            f"    option httpchk OPTIONS /primary\n    http-check expect status 200\n{servers}"
        )

    @property
    def password(self) -> str:
        return self.cluster.password

    # -- the members' files ------------------------------------------------------------------------------------

    def pool_entry(self, **more: Any) -> dict[str, Any]:
        """PgBouncer, as members name it."""
        return {"host": self.host.address, "port": self.pool_port, "password": self.password, **more}

    def balancer_entry(self) -> dict[str, Any]:
        """HAProxy, as members name it."""
        return {"socket": f"{self.host.address}:{self.runtime_port}"}

    def tell(
        self, pools: Sequence[Mapping[str, Any]] = (), balancers: Sequence[Mapping[str, Any]] = (), owner: str = ""
    ) -> None:
        """Every member's file names these, in force. `owner`: the member on whose host the target file is."""
        for member in self.cluster.members:
            mine = [{**pool, **({"target_file": str(self.target)} if member.name == owner else {})} for pool in pools]
            front = {"pgbouncer": mine, "haproxy": [dict(each) for each in balancers]}
            member.write_config({**self._before[member.name], **front})
            seen = len(log_of(member))
            wait_until(f"{member.name} takes the order", lambda m=member: _reloads(m))
            # The parameters are applied afresh by what a reload posts: whatever else it brought is in force by then.
            wait_until(f"{member.name} has reloaded", lambda m=member, n=seen: "ApplyConfig done" in log_of(m)[n:])

    # -- looking -----------------------------------------------------------------------------------------------

    def admin(self, command: str) -> list[tuple[Any, ...]]:
        """Rows that PgBouncer's console answers; none where it does not answer."""
        fields = f"host={self.host.address} port={self.pool_port} user={ADMIN} dbname=pgbouncer connect_timeout=2"
        try:
            with psycopg.connect(
                fields, password=self.password, autocommit=True, cursor_factory=psycopg.ClientCursor
            ) as console:
                cursor = console.execute(command)
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            return []

    def routed_to(self) -> list[str]:
        """Members to which HAProxy sends clients; none where it does not answer."""
        try:
            with socket.create_connection((self.host.address, self.runtime_port), 2) as runtime:
                runtime.sendall(b"show servers state primary\n")
                lines = runtime.makefile().read().splitlines()
        except OSError:
            return []
        rows = [line.split() for line in lines if " primary " in line and not line.startswith("#")]
        return [row[3] for row in rows if row[5] == "2"]

    def pool_dsn(self) -> str:
        """For clients, without the password."""
        return f"host={self.host.address} port={self.pool_port} user=postgres dbname=postgres sslmode=disable"

    def balancer_dsn(self) -> str:
        """For clients, without the password."""
        return f"host={self.host.address} port={self.balancer_port} user=postgres dbname=postgres sslmode=disable"

    def answers(self) -> bool:
        """A write through the pool succeeds."""
        try:
            with psycopg.connect(f"{self.pool_dsn()} connect_timeout=2", password=self.password) as client:
                client.execute("SET LOCAL statement_timeout = '5s'")
                client.execute("CREATE TABLE IF NOT EXISTS through_the_pool (n int)")
        except psycopg.Error:
            return False
        return True


def _reloads(member: Member) -> bool:
    try:
        return requests.post(f"{member.rest_url}/reload", timeout=5).status_code == 202
    except requests.RequestException:
        return False


def _address_of(member: Member) -> tuple[str, int]:
    return member.host.address, member.postgres_port


# -- pgbench --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bearing:
    """How clients bore it."""

    errors: str
    """What pgbench said of clients that broke off; empty: none did."""
    transactions: int
    longest_s: float
    """The longest that a client waited for a transaction."""


class Pgbench:
    """16 clients that come through `dsn` from the client's host, until `end` or for `seconds`."""

    CLIENTS = 16

    def __init__(self, frontage: Frontage, dsn: str, seconds: int, rate: int = 0) -> None:
        self._frontage = frontage
        self._prefix = frontage.directory / f"pgbench-{time.monotonic_ns()}"
        self._log = Path(f"{self._prefix}.out")
        program = str(postgres_bin_dir() / "pgbench")
        rated = [f"--rate={rate}"] if rate else []
        logged = ["--log", f"--log-prefix={self._prefix}"]
        argv = [program, "-n", "-N", f"-c{self.CLIENTS}", "-j2", f"-T{seconds}", *rated, *logged, dsn]
        environment = {"PGPASSWORD": frontage.password}
        self._process = frontage.host.spawn(argv, self._log, env=environment, cwd=frontage.directory)
        wait_until("pgbench is on its way", self.transactions)

    def transactions(self) -> int:
        """How many have ended so far, as far as they are written."""
        return sum(1 for _ in self._times())

    def end(self, timeout_s: float = 120.0) -> Bearing:
        """Wait for its end."""
        assert self._process.ended.wait(timeout_s), "pgbench does not end"
        said = self._log.read_text(errors="replace")
        complaints = [line for line in said.splitlines() if "error" in line.lower() or "abort" in line.lower()]
        times = list(self._times())
        bad = "\n".join(complaints) or ("" if self._process.status == 0 else said)
        return Bearing(bad, len(times), max(times, default=0.0))

    def _times(self) -> list[float]:
        """Seconds of each transaction, from when its client began it: with a rate, how late that was is told apart.

        Source: manual of pgbench, per-transaction logging.
        """
        rows = [
            line.split() for path in self._prefix.parent.glob(f"{self._prefix.name}.[0-9]*") for line in _lines(path)
        ]
        return [(int(row[2]) - sum(map(int, row[6:7]))) / 1e6 for row in rows if len(row) >= 6]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def fill(cluster: Cluster) -> None:
    """pgbench's tables, small ones."""
    leader = cluster.need_leader()
    program = str(postgres_bin_dir() / "pgbench")
    argv = [program, "-i", "-q", "-s1", leader.dsn]
    log = cluster.client_host.directory / "pgbench-init.log"
    ended = cluster.client_host.spawn(argv, log, env={"PGPASSWORD": cluster.password})
    assert ended.ended.wait(60)
    assert ended.status == 0, log.read_text()
    assert sql(leader, "SELECT count(*) FROM pgbench_accounts") == [(100_000,)]


def switch_over(cluster: Cluster, candidate: str = "") -> Member:
    """By REST, as the command line does; the new leader, with every member back in place."""
    former = cluster.need_leader()
    body = {"leader": former.name, **({"candidate": candidate} if candidate else {})}
    answer = requests.post(f"{former.rest_url}/switchover", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    new = cluster.wait_until_settled(45.0)
    assert new is not former
    return new


def in_background(member: Member, body: Mapping[str, Any]) -> Future[requests.Response]:
    """A switchover that is asked for of this member, not awaited."""
    pool = ThreadPoolExecutor(1)
    asked = pool.submit(requests.post, f"{member.rest_url}/switchover", json=body, timeout=120)
    pool.shutdown(wait=False)
    return asked


def record_of(member: Member) -> dict[str, Any]:
    """The last failover record."""
    return dict(requests.get(f"{member.rest_url}/failovers", timeout=5).json()[0])


def notes_until(member: Member, holds: Callable[[list[str]], bool]) -> list[str]:
    """The notes of the last record, once they are as wanted: some are written a moment after the record."""

    def look() -> list[str] | None:
        notes = list(record_of(member).get("notes", []))
        return notes if holds(notes) else None

    wait_until("the record has its notes", lambda: look() is not None)
    return look() or []
