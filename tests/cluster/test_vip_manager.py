"""The real vip-manager keeps an address on the leader's host, by the key in etcd and by REST.

Of Debian's packages vip-manager2 (trixie) has the program; the older vip-manager speaks etcd's version 2 only, which
does not see the keys of version 3.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from hamgr.drill.cluster import SCOPE, Cluster
from hamgr.drill.hosts import Process
from hamgr.drill.member import Member
from tests.cluster.bench import Cli, wait_until

PORT = 5432
POLL_MS = 200
PROGRAM = shutil.which("vip-manager", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def why_missing() -> str:
    """Why there is no vip-manager for etcd's version 3; empty: there is one."""
    if PROGRAM is None:
        return "vip-manager is not installed (Debian: vip-manager2)"
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"(\d+)\.\d+", said.stdout + said.stderr)
    if version is None or int(version.group(1)) < 2:
        return f"{PROGRAM} reads etcd's version 2 only"
    return "" if os.geteuid() == 0 else "needs root: an address of its own on each host"


WHY_MISSING = why_missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(WHY_MISSING), reason=WHY_MISSING)]


def address_of(cluster: Cluster) -> str:
    """An address of the hosts' network that nobody has."""
    return cluster.members[0].host.address.rpartition(".")[0] + ".200"


def way(kind: str, cluster: Cluster, member: Member) -> list[str]:
    """What tells vip-manager who leads."""
    if kind == "patroni":
        return ["--dcs-type", "patroni", "--dcs-endpoints", f"{member.rest_url}/", "--trigger-key", "/leader"]
    endpoints = ",".join(f"http://{endpoint}" for endpoint in cluster.store.endpoints)
    key = f"/service/{SCOPE}/leader"
    return ["--dcs-type", "etcd", "--dcs-endpoints", endpoints, "--trigger-key", key, "--trigger-value", member.name]


@contextlib.contextmanager
def kept(kind: str, cluster: Cluster, address: str) -> Iterator[None]:
    """vip-manager runs on every member's host; what comes for the address goes to that host's server."""
    running: list[Process] = []
    try:
        for member in cluster.members:
            target = f"{member.host.address}:{member.postgres_port}"
            rules = (
                "add table ip vip; add chain ip vip arrive { type nat hook prerouting priority -100; }; "
                f"add rule ip vip arrive ip daddr {address} tcp dport {PORT} dnat to {target}"
            )
            member.host.run(["nft", rules], as_account=False)
            argv = [str(PROGRAM), "--ip", address, "--netmask", "24", "--interface", "eth0", "--interval", str(POLL_MS)]
            argv += way(kind, cluster, member)
            log = member.host.directory / "vip-manager.log"
            running.append(member.host.spawn(argv, log, as_account=False))
        yield
    finally:
        for process in running:
            process.send(signal.SIGKILL)
        for member, process in zip(cluster.members, running, strict=False):
            assert process.ended.wait(10)
            member.host.run(["nft", "delete table ip vip"], as_account=False)
        for name in holders(cluster, address):
            # Ended by a signal it leaves the address where it is.
            (holder,) = (member for member in cluster.members if member.name == name)
            holder.host.run(["ip", "addr", "del", f"{address}/24", "dev", "eth0"], as_account=False)


def holders(cluster: Cluster, address: str) -> list[str]:
    """Members whose host has the address."""
    shown = {member.name: member.host.run(["ip", "-4", "addr"], as_account=False) for member in cluster.members}
    return [name for name, text in shown.items() if f"inet {address}/" in text]


def writes_at(address: str, password: str) -> str:
    """host:port of the server that has taken a write through the address; empty: none does just now."""
    dsn = f"host={address} port={PORT} user=postgres dbname=postgres connect_timeout=2"
    statement = "SELECT host(inet_server_addr()) || ':' || inet_server_port(), txid_current()"
    try:
        with psycopg.connect(dsn, password=password, autocommit=True) as connection:
            row = connection.execute(statement).fetchone()
    except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
        return ""
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("kind", ["etcd", "patroni"])
def test_the_address_is_the_leaders_and_goes_with_the_lead(cluster: Cluster, hamgr: Cli, kind: str) -> None:
    address, former = address_of(cluster), cluster.need_leader()

    def is_with(member: Member) -> bool:
        place = f"{member.host.address}:{member.postgres_port}"
        return holders(cluster, address) == [member.name] and writes_at(address, member.password) == place

    with kept(kind, cluster, address):
        wait_until("the address is the leader's", lambda: is_with(former))
        successor = cluster.replicas()[0]
        said = hamgr("switchover", "--leader", former.name, "--candidate", successor.name, "--force")
        assert said.status == 0, said.err
        wait_until("the address has followed the switchover", lambda: is_with(successor))
        os.kill(successor.postmaster_pid(), signal.SIGKILL)
        heir = cluster.wait_until_settled(45.0)
        wait_until("the address has followed the failover", lambda: is_with(heir))
