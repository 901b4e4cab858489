"""A cluster of three hosts as README.md sets it up, and a client that knows when its writes were acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
import requests

from hamgr.drill.client import AckLog, conninfo, is_steady, make_table, stored_numbers
from hamgr.drill.verdict import Verdict, judge
from tests.systemd.containers import README_NETWORK, Host, docker, readme_blocks, wait_until

NAMES = ("db1", "db2", "db3")
SUBNETS = 40
FIRST_SUBNET = 77
PASSWORD = "change-me-1"  # of config/hamgr.yml
REST_LOGIN = ("admin", "change-me-3")
TTL_S = 5
SETTLE_S = 120.0
QUIET = "options='-c log_min_messages=panic -c log_min_error_statement=panic'"
"""What a client is refused all the time does not fill the journals."""


class Trio:
    """The hosts, from `set_up` on a cluster; its network and containers are gone after `close`."""

    def __init__(self, image: str, prefix: str, directory: Path) -> None:
        self.directory = directory
        self._image, self._prefix = image, prefix
        self.network = f"{prefix}-net"
        self.addresses = _make_network(self.network)
        self.hosts = [
            Host(name, f"{prefix}-{name}", f"{self.addresses}{11 + number}") for number, name in enumerate(NAMES)
        ]

    @property
    def is_there(self) -> bool:
        """Left by an earlier run under the same name."""
        return all(host.ask("hostname") == host.name for host in self.hosts)

    def set_up(self) -> None:
        """README.md, "Set up a host", literally: its commands and files, with these containers' addresses."""
        packages, hamgr, etcd, drop_in, member_file, service = readme_blocks("Set up a host")
        # The first two steps on one host, from which the others are cloned.
        first, *others = self.hosts
        first.start(self._image, self.network)
        first.run(f"export DEBIAN_FRONTEND=noninteractive\n{packages.replace('apt-get install', 'apt-get install -y')}")
        first.run(hamgr)
        installed = f"{self._image}-installed"
        docker("commit", "--pause=true", "--change", "CMD []", first.container, installed)
        for host in others:
            host.start(installed, self.network)
            # The clone of a disk brings along the etcd that the package has started, as each host had it.
        self._on_all(lambda host: host.write("/etc/default/etcd", self._localized(etcd, host)))
        self._on_all(lambda host: host.run("mkdir -p /etc/systemd/system/etcd.service.d"))
        self._on_all(lambda host: host.write("/etc/systemd/system/etcd.service.d/hamgr.conf", drop_in))
        self._on_all(lambda host: host.run("systemctl daemon-reload; systemctl enable etcd; systemctl restart etcd"))
        self._on_all(lambda host: self._configure(host, member_file))
        self._on_all(lambda host: host.run(service))
        self.wait_until_settled()

    def _on_all(self, do: Any) -> None:
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(do, self.hosts))

    def _localized(self, text: str, host: Host) -> str:
        """Text of the first host, with this one's own name and address where that is meant."""
        cluster_line = next((line for line in text.splitlines() if line.startswith("ETCD_INITIAL_CLUSTER=")), "")
        own = text.replace("10.0.0.11", host.address).replace("db1", host.name)
        lines = [cluster_line if line.startswith("ETCD_INITIAL_CLUSTER=") else line for line in own.splitlines()]
        return "\n".join(lines).replace(README_NETWORK, self.addresses) + "\n"

    def _configure(self, host: Host, step: str) -> None:
        """Step 4: the sample with the few values changed that the README names."""
        sample = host.run("cat config/hamgr.yml")
        own = sample.replace("name: db1", f"name: {host.name}")
        for port in ("8008", "5432"):
            own = own.replace(f"connect_address: 10.0.0.11:{port}", f"connect_address: {host.address}:{port}")
        host.write("config/hamgr.yml", own.replace(README_NETWORK, self.addresses))
        host.run(step)

    # -- the cluster as it is

    def says(self, host: Host) -> dict[str, Any]:
        """GET /patroni of a host; empty where nobody answers."""
        try:
            return dict(requests.get(f"http://{host.address}:8008/patroni", timeout=2).json())
        except (OSError, ValueError):
            return {}

    def leader(self) -> Host | None:
        """The one that says it is primary, by a code that a load balancer would go by."""
        for host in self.hosts:
            try:
                if requests.get(f"http://{host.address}:8008/primary", timeout=2).status_code == 200:
                    return host
            except OSError:
                continue
        return None

    @property
    def need_leader(self) -> Host:
        return wait_until("somebody leads", self.leader, SETTLE_S)

    @property
    def replicas(self) -> list[Host]:
        """All but the leader."""
        leader = self.need_leader
        return [host for host in self.hosts if host is not leader]

    def is_settled(self) -> bool:
        """One leads, and all others stream from it."""
        bodies = [self.says(host) for host in self.hosts]
        streaming = sum(body.get("replication_state") == "streaming" for body in bodies)
        return self.leader() is not None and streaming == len(self.hosts) - 1

    def wait_until_settled(self) -> Host:
        """The leader, once all others stream from it and may take over."""
        try:
            wait_until("one leads, two stream", self.is_settled, SETTLE_S)
        except AssertionError:
            self.show()
            raise
        return self.need_leader

    def term(self) -> int:
        return int(self.says(self.need_leader)["term"])

    def set_dynamic(self, values: dict[str, Any]) -> None:
        """As `hamgr edit-config` would."""
        url = f"http://{self.need_leader.address}:8008/config"
        answer = requests.patch(url, json=values, auth=REST_LOGIN, timeout=10)
        answer.raise_for_status()

    def dsn(self, host: Host) -> str:
        return conninfo(host.address, 5432)

    def connect(self, host: Host) -> psycopg.Connection[Any]:
        """A superuser's session, autocommit."""
        return psycopg.connect(self.dsn(host), password=PASSWORD, autocommit=True)

    def show(self) -> None:
        """For whoever reads why a test failed."""
        for host in self.hosts:
            print(f"==== {host.name}", host.ask("systemctl status hamgr etcd --no-pager -n 0; hamgr list"))
            print(host.ask("journalctl -u hamgr --no-pager -n 40 -o short-precise"))

    def close(self) -> None:
        for host in self.hosts:
            subprocess.run(["docker", "rm", "-f", "-v", host.container], capture_output=True, check=False)
        for argv in (["network", "rm", self.network], ["rmi", f"{self._image}-installed"]):
            subprocess.run(["docker", *argv], capture_output=True, check=False)


def _make_network(name: str) -> str:
    """The beginning of its addresses: the first subnet that is not taken."""
    subnet = ["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", name]
    there = subprocess.run(["docker", *subnet], capture_output=True, text=True, check=False)
    if there.returncode == 0:
        return there.stdout.strip().removesuffix("0/24")
    for number in range(FIRST_SUBNET, FIRST_SUBNET + SUBNETS):
        made = subprocess.run(
            ["docker", "network", "create", "--subnet", f"10.{number}.0.0/24", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode == 0:
            return f"10.{number}.0."
        assert "overlap" in made.stderr.lower(), made.stderr
    raise AssertionError("no free subnet")


@dataclass(slots=True)
class Session:
    """A client's session that lives on, or does not."""

    connection: psycopg.Connection[Any]

    def works(self) -> bool:
        """It was never broken, and writes."""
        try:
            self.connection.execute("CREATE TABLE IF NOT EXISTS witness (n int)")
            self.connection.execute("INSERT INTO witness VALUES (1)")
        except psycopg.Error:
            return False
        return True


@dataclass(slots=True)
class Traffic:
    """The drills' client, writing all through a `with`; the verdict after it."""

    trio: Trio
    verdict: Verdict | None = None
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _logs: dict[str, AckLog] = field(default_factory=dict)
    _fault_ns: int = 0

    def __enter__(self) -> Traffic:
        trio = self.trio
        make_table(trio.dsn(trio.need_leader), PASSWORD)
        for mode, interval_ms in (("routed", 4), ("pinned", 20)):
            log = self._logs[mode] = AckLog(trio.directory / f"{mode}-{time.monotonic_ns()}.acks")
            targets = [f"{host.name}={trio.dsn(host)} {QUIET}" for host in trio.hosts]
            argv = [sys.executable, "-m", "hamgr.drill.writer", mode, str(log.path), str(interval_ms), *targets]
            self._processes.append(subprocess.Popen(argv, env={**os.environ, "PGPASSWORD": PASSWORD}))
        self.wait_until_steady()
        self._fault_ns = time.monotonic_ns()
        return self

    def wait_until_steady(self) -> None:
        """From now on writes are acknowledged for a second without a long pause."""
        since_ns = time.monotonic_ns()
        log = self._logs["routed"]
        wait_until("steady writes", lambda: is_steady(log.read(), since_ns, time.monotonic_ns(), 1.0), SETTLE_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait_until_steady()
        finally:
            for process in self._processes:
                process.send_signal(signal.SIGTERM)
            for process in self._processes:
                process.wait(20)
        if kind is None:
            self.verdict = self._judge()
            print(f"gap {self.gap_s:.3f} s (quiet {self.verdict.quiet_gap_s:.3f}), {self.verdict.leaderships}")

    @property
    def gap_s(self) -> float:
        """Longest time without an acknowledged write from the fault on."""
        assert self.verdict is not None
        assert self.verdict.write_gap_s is not None
        return self.verdict.write_gap_s

    def _judge(self) -> Verdict:
        routed, pinned = self._logs["routed"].read(), self._logs["pinned"].read()
        dsn = self.trio.dsn(self.trio.need_leader)
        end_ns = max(ack.acknowledged_ns for ack in routed)
        stored = [stored_numbers(dsn, PASSWORD, mode) for mode in ("routed", "pinned")]
        return judge(
            routed, pinned, stored_routed=stored[0], stored_pinned=stored[1], fault_ns=self._fault_ns, end_ns=end_ns
        )
