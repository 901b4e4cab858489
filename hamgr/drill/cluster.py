"""The cluster under drill: hosts, etcd and members, driven from outside like an operator would."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamgr.drill.accounts import Account, interpreter_for, own
from hamgr.drill.clocks import WallClock
from hamgr.drill.disks import Disk, Keeper, make_disks
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, loopback_hosts
from hamgr.drill.member import Member, MemberDisks
from hamgr.drill.network import Network, free_port
from hamgr.drill.programs import postgres_bin_dir
from hamgr.drill.server import Standing
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build. `dcs`: further keys of bootstrap.dcs, as in the configuration file."""

    directory: Path
    """An empty directory of its own that the servers' account can reach."""
    account: Account | None
    on_netns: bool = False
    members: int = 3
    store_members: int = 3
    ttl_s: int = 5
    synchronous_mode: str = "off"
    """off, on or quorum."""
    disks: bool = False
    """Whether data, WAL and files elsewhere of each member lie on small disks of its own (root)."""
    clocks: bool = False
    """Whether each member has a wall clock of its own."""
    dcs: Mapping[str, Any] = field(default_factory=dict)


class Cluster:
    """Hosts, store and members of one drill. Built stopped; `start` forms it; `close` leaves nothing."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.logs = own(plan.directory / "logs", None)
        self.network: Network | None = None
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
        if self.plan.on_netns:
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
            rest_port=free_port("127.0.0.1", taken),
            postgres_port=free_port("127.0.0.1", taken),
            password=self.password,
            log=self.logs / f"{host.name}.log",
            clock=WallClock(host.directory / "wall-clock") if self.plan.clocks else None,
        )

    @property
    def client_host(self) -> Host:
        return self.hosts[CLIENT_HOST]

    @property
    def targets(self) -> dict[str, str]:
        """Member name -> conninfo without password, for the client."""
        return {member.name: member.dsn for member in self.members}

    def start(self, timeout_s: float = 90.0) -> None:
        """True on return: etcd runs and the members form a cluster. Raises DrillError otherwise."""
        self.store.start()
        for member in self.members:
            self.start_member(member)
        self.wait_until_settled(timeout_s)

    def start_member(self, member: Member) -> None:
        """Start a member's guard and agent, for the first time or again."""
        member.start(self._python)

    def ensure_started(self, member: Member) -> None:
        """Start a member's guard and agent unless a guard of it runs, whoever started that."""
        if not member.has_guard():
            self.start_member(member)

    def leader(self) -> Member | None:
        """The one member whose REST says that it is primary; None while there is none or more than one."""
        leaders = [member for member in self.members if member.is_leader()]
        return leaders[0] if len(leaders) == 1 else None

    def need_leader(self) -> Member:
        """The leader. Raises DrillError when there is none."""
        leader = self.leader()
        if leader is None:
            raise DrillError("no member answers /primary with 200 (or several do)")
        return leader

    def replicas(self) -> list[Member]:
        """All members but the leader."""
        leader = self.need_leader()
        return [member for member in self.members if member is not leader]

    def wait_until_settled(self, timeout_s: float) -> Member:
        """The leader, as soon as every member is leader or streaming replica on its timeline.

        Judged by REST and by SQL, which must agree. Raises DrillError with what is missing and the folder of
        logs after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while missing := self.unsettled():
            self._check_alive()
            if time.monotonic() > deadline:
                raise DrillError(f"not settled after {timeout_s:g} s: {missing}; logs: {self.logs}")
            time.sleep(0.1)
        return self.need_leader()

    def _check_alive(self) -> None:
        """Raise DrillError for a member whose guard ended by itself: it will not settle any more."""
        for member in self.members:
            if not member.has_guard():
                last_words = member.log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise DrillError(f"{member.name} does not run: {last_words}; log: {member.log}")

    def unsettled(self) -> str:
        """Why the cluster is not settled, empty if it is."""
        for member in self.members:
            if not member.is_in_place():
                said = member.says()
                return f"{member.name} is {said.get('role', 'silent')}, {said.get('state', 'no state')}"
        leader = self.leader()
        if leader is None:
            return "no leader, or several"
        standings = {member.name: member.standing() for member in self.members}
        return why_unsettled(leader.name, standings, synchronous=self.plan.synchronous_mode != "off")

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


def why_unsettled(leader: str, standings: Mapping[str, Standing | None], *, synchronous: bool = False) -> str:
    """What contradicts 'leader' being the only primary and all others streaming on its timeline. Pure.

    `synchronous`: the primary's commits must wait for a standby as well.
    """
    head = standings[leader]
    if head is None or not head.is_primary:
        return f"{leader} leads by REST but by SQL it is {'a standby' if head else 'silent'}"
    for name, standing in standings.items():
        if name == leader:
            continue
        if standing is None:
            return f"{name}: postgres does not answer"
        if standing.is_primary:
            return f"{name} and {leader} are both primary by SQL"
        if not standing.is_streaming:
            return f"{name} does not stream"
        if standing.timeline != head.timeline:
            return f"{name} streams timeline {standing.timeline}, {leader} writes {head.timeline}"
    if synchronous and not head.synchronous_standbys:
        return f"no commit on {leader} waits for a standby"
    return ""


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
