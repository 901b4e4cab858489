"""A cluster on hosts of this machine: etcd and members, driven from outside like an operator would."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from hamgr.drill.accounts import interpreter_for, own
from hamgr.drill.base_cluster import BaseCluster
from hamgr.drill.base_member import MemberDisks
from hamgr.drill.clocks import WallClock
from hamgr.drill.disks import Disk, Keeper, make_disks
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, loopback_hosts
from hamgr.drill.member import Member
from hamgr.drill.network import Network, free_port
from hamgr.drill.plan import Place, Plan
from hamgr.drill.predicted import Gap, predicted_gaps
from hamgr.drill.programs import postgres_bin_dir
from hamgr.drill.store import Store

SCOPE = "drill"
CLIENT_HOST = "client"

_CLUSTER_PARAMETERS = {"max_connections": 300, "shared_buffers": "64MB"}
"""Room for a client's sessions that wait for a standby which does not come: each stays for as long."""

_SMALL_WAL = {"min_wal_size": "32MB", "max_wal_size": "96MB"}
DISK_SIZES_BYTES = {"data": 400 << 20, "wal": 512 << 20, "spare": 16 << 20}
"""Of each member's disks, in the order of MemberDisks. The images are sparse."""

_LONGEST_SOCKET_DIRECTORY = 107 - len("/.s.PGSQL.65535.lock")
"""unix(7): 108 bytes with the final zero."""


class Cluster(BaseCluster):
    """Hosts on loopback or in network namespaces."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.logs = own(plan.directory / "logs", None)
        self.network: Network | None = None
        self.store: Store
        self.hosts: dict[str, Host] = {}
        self.members: list[Member] = []
        self._keeper: Keeper | None = None
        self._python = interpreter_for(plan.account, plan.directory)
        self.password = secrets.token_hex(16)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        members = [f"db{number}" for number in range(1, self.plan.members + 1)]
        stores = [f"etcd{number}" for number in range(1, self.plan.store_members + 1)]
        self.hosts = self._make_hosts([*members, *stores, CLIENT_HOST])
        taken: set[int] = set()
        self.store = Store([self.hosts[name] for name in stores], self.logs, taken)
        self.members = [self._make_member(self.hosts[name], taken) for name in members]
        if self.plan.disks:
            self._give_disks()
        for member in self.members:
            member.write_config(member_settings(member, self.store.endpoints, self.plan))

    def _give_disks(self) -> None:
        made: list[Disk] = []
        try:
            for member in self.members:
                member.disks = MemberDisks(
                    *make_disks(member.host.directory, DISK_SIZES_BYTES, self.plan.account, made)
                )
        finally:
            # Even after a failure half-way: what was mounted is taken away.
            self._keeper = Keeper(made)

    def _make_hosts(self, names: Sequence[str]) -> dict[str, Host]:
        room = own(self.plan.directory / "hosts", None)
        if self.plan.place is Place.NETNS:
            self.network = Network(names, room, self.plan.account)
            return self.network.hosts
        return loopback_hosts(names, room, self.plan.account)

    def _make_member(self, host: Host, taken: set[int]) -> Member:
        for name in ("run", "socket"):
            own(host.directory / name, self.plan.account)
        if len(str(host.directory / "socket")) > _LONGEST_SOCKET_DIRECTORY:
            raise DrillError(f"{host.directory} is too long a path for a Unix socket: choose another directory")
        return Member(
            name=host.name,
            host=host,
            python=self._python,
            rest_port=free_port("127.0.0.1", taken),
            postgres_port=free_port("127.0.0.1", taken),
            password=self.password,
            log=self.logs / f"{host.name}.log",
            clock=WallClock(host.directory / "wall-clock") if self.plan.clocks else None,
        )

    @property
    def client_host(self) -> Host:
        return self.hosts[CLIENT_HOST]

    @cached_property
    def predicted_gaps(self) -> Mapping[str, Gap]:
        member = self.members[0]
        return predicted_gaps(member.python, member.config_path)

    def start(self, timeout_s: float = 90.0) -> None:
        self.store.start()
        for member in self.members:
            self.start_member(member)
        self.wait_until_settled(timeout_s)

    def check_alive(self) -> None:
        for member in self.members:
            if not member.has_guard():
                last_words = member.log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise DrillError(f"{member.name} does not run: {last_words}; log: {member.log}")

    def gather_logs(self) -> None:
        """Every program has written into it from the start."""

    def keep(self) -> list[int]:
        """Let everything outlive this process. Returns the pids whose SIGTERM ends it."""
        if self.network is not None:
            raise DrillError("only a cluster on loopback can be kept")
        for host in self.hosts.values():
            host.keep()
        return [host.pid for host in self.hosts.values()]

    def close(self) -> None:
        """End everything. Files stay, but those on disks of members: they go with the disks."""
        with ExitStack() as rest:  # each of them, even if another fails; the last one first
            for member in self.members:
                rest.callback(member.remove_traces)
            if self._keeper is not None:
                rest.callback(self._keeper.close)
            for host in self.hosts.values():
                rest.callback(host.close)
            if self.network is not None:
                rest.callback(self.network.close)
            if self._keeper is not None:
                rest.callback(self._keeper.thaw_all)


def member_settings(member: Member, etcd_hosts: Sequence[str], plan: Plan) -> dict[str, Any]:
    """A member's configuration file: the keys that an operator would write, plus its own directories."""
    host = member.host
    password = member.password
    elsewhere = [{"waldir": str(member.disks.wal.mount / "wal")}] if member.disks else []
    network = "127.0.0.1/32" if not host.is_netns else f"{host.address.rpartition('.')[0]}.0/24"
    return {
        "scope": SCOPE,
        "name": member.name,
        "restapi": {
            "listen": f"{host.address}:{member.rest_port}",
            "connect_address": f"{host.address}:{member.rest_port}",
        },
        "etcd3": {"hosts": list(etcd_hosts)},
        "bootstrap": {
            "dcs": {
                "ttl": plan.ttl_s,
                "synchronous_mode": plan.synchronous_mode,
                **plan.dcs,
                "postgresql": {"parameters": {**_CLUSTER_PARAMETERS, **(_SMALL_WAL if member.disks else {})}},
            },
            # A change of leader begins a segment, and a drill has more of them in minutes than others in years.
            "initdb": [{"encoding": "UTF8"}, "data-checksums", {"wal-segsize": 1}, *elsewhere],
        },
        "postgresql": {
            "listen": f"{host.address}:{member.postgres_port}",
            "connect_address": f"{host.address}:{member.postgres_port}",
            "data_dir": str(member.data_dir),
            "bin_dir": str(postgres_bin_dir()),
            **({"basebackup": elsewhere} if elsewhere else {}),
            "authentication": {
                "superuser": {"username": "postgres", "password": password},
                "replication": {"username": "replicator", "password": password},
                "rewind": {"username": "rewinder", "password": password},
            },
            "parameters": {"unix_socket_directories": str(host.directory / "socket")},
            "pg_hba": [
                "local all all scram-sha-256",
                f"host all all {network} scram-sha-256",
                f"host replication replicator {network} scram-sha-256",
            ],
        },
        "guard": {"runtime_dir": str(member.runtime_dir)},
    }
