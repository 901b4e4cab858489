"""What the benchmark must know of a manager under test, and no more: faults act on hosts, processes and networks.

A *node* is one database host with the manager's daemons and its server. The *authority* is what nodes ask who leads:
etcd, or pg_auto_failover's monitor.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hamgr.drill.accounts import Account
from hamgr.drill.client import conninfo
from hamgr.drill.disks import Disk
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, Process
from hamgr.drill.network import free_port
from hamgr.drill.server import Standing, recorded_postmaster, standing_of
from hamgr.drill.subreaper import descendants

NODES = ("db1", "db2", "db3")

SERVER_PARAMETERS: Mapping[str, str | int] = {
    "max_connections": 300,
    "shared_buffers": "64MB",
    "min_wal_size": "32MB",
    "max_wal_size": "96MB",
}
"""Of every server, whoever manages it. Room for a client's sessions that wait for a standby which does not come."""

INITDB_OPTIONS = ("--encoding=UTF8", "--data-checksums", "--wal-segsize=1")
"""Of every cluster. A change of leader begins a segment, and a benchmark has more of them than years have."""

Undo = Callable[[], None]


@dataclass(slots=True)
class Ground:
    """What a manager is built upon: hosts with addresses, a place for logs, one password for all roles."""

    hosts: Mapping[str, Host]
    logs: Path
    account: Account | None
    password: str
    disks: Mapping[str, Disk]
    """Node -> the disk that its data directory and WAL lie on; empty: on the machine's own."""
    taken_ports: set[int] = field(default_factory=set)

    def port(self) -> int:
        """One that nothing on this ground uses."""
        return free_port("127.0.0.1", self.taken_ports)

    @property
    def subnet(self) -> str:
        """Of all hosts, in CIDR notation."""
        address = self.hosts[NODES[0]].address
        return f"{address.rpartition('.')[0]}.0/24"


@dataclass(slots=True, kw_only=True)
class Node(ABC):
    """One database host. `process`: what was started on it last; its supervisor, where a manager has one."""

    name: str
    host: Host
    postgres_port: int
    password: str
    log: Path
    disk: Disk | None = None
    process: Process | None = None

    @property
    def dsn(self) -> str:
        """libpq's connection string, without the password."""
        return conninfo(self.host.address, self.postgres_port)

    @property
    def data_dir(self) -> Path:
        return (self.disk.mount if self.disk else self.host.directory) / "data"

    @property
    def rest_url(self) -> str | None:
        """Where the manager answers health checks of this node; None where it has no such thing."""
        return None

    @property
    def further_logs(self) -> Sequence[Path]:
        """What the manager writes beside `log`, wherever it exists."""
        return ()

    def standing(self) -> Standing | None:
        """By SQL; None when the server does not answer."""
        return standing_of(self.dsn, self.password)

    def postmaster_pid(self) -> int:
        """Raises DrillError where no server runs."""
        return recorded_postmaster(self.data_dir)

    @abstractmethod
    def start(self) -> None:
        """Start the manager's daemons, for the first time or again; returns at once."""

    def is_running(self) -> bool:
        """Whether the manager's daemons run, as far as whoever starts them can see."""
        return self.process is not None and not self.process.ended.is_set()

    def ensure_started(self) -> None:
        """Start the manager's daemons unless they run."""
        if not self.is_running():
            self.start()

    @abstractmethod
    def agent_pids(self) -> list[int]:
        """The process that decides on this node. Raises DrillError where there is none."""

    def manager_pids(self) -> list[int]:
        """All processes of the manager on this node, parents first, none of the server's.

        Raises DrillError where there are none.
        """
        if self.process is None or self.process.ended.is_set():
            raise DrillError(f"{self.name}: the manager does not run")
        servers = self.server_pids()
        return [pid for pid in (self.process.pid, *descendants(self.process.pid)) if pid not in servers]

    def server_pids(self) -> set[int]:
        """Postmaster and all its children; empty where no server runs."""
        with contextlib.suppress(DrillError):
            postmaster = self.postmaster_pid()
            return {postmaster, *descendants(postmaster)}
        return set()


class Authority(ABC):
    """Whom the nodes ask who leads."""

    hosts: Sequence[Host]

    @abstractmethod
    def freeze(self) -> Undo:
        """All of it stands still: connections stay up and nothing answers."""

    @abstractmethod
    def kill_leader(self) -> Undo:
        """The one process that decides for it is gone: etcd's leader, or the monitor. Undo starts it again."""

    @abstractmethod
    def pids(self) -> list[int]:
        """All its processes."""

    @abstractmethod
    def counters(self) -> Mapping[str, float]:
        """What it has counted of writes up to now. Raises DrillError: no answer."""


class Manager(ABC):
    """A manager with one set of timings on one ground. Built stopped."""

    nodes: Sequence[Node]
    authority: Authority

    @abstractmethod
    def form(self) -> None:
        """Start everything, so that the nodes will form a cluster. Raises DrillError."""

    @abstractmethod
    def switch_over(self, primary: Node) -> None:
        """Ask, as an operator would, that another node lead. Raises DrillError when that is refused."""

    @abstractmethod
    def restlessness(self) -> str:
        """What the manager still has to do by its own word; empty: it is ready for a switchover.

        Nothing is judged by this. It keeps a fault from striking a cluster that is only about to form.
        """


def write_secret(path: Path, text: str, account: Account | None) -> None:
    """A file that only the account can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    if account is not None:
        os.chown(path, account.uid, account.gid)
