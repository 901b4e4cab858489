"""The etcd of a drill: one or three members, each on a host, watched over their HTTP gateway."""

from __future__ import annotations

import base64
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, Process
from hamgr.drill.machine import Machine
from hamgr.drill.network import free_port

_REQUEST_TIMEOUT_S = 2.0


@dataclass(slots=True)
class StoreMember:
    """One etcd member, as its clients see it; `process` where it was started by this drill itself."""

    name: str
    host: Machine
    client_port: int
    process: Process | None = None
    data_dir: Path | None = None
    """Where its files are, if this drill can reach them."""

    @property
    def endpoint(self) -> str:
        """host:port for clients."""
        return f"{self.host.address}:{self.client_port}"


class BaseStore(ABC):
    """An etcd cluster, wherever its members run. Nothing else runs on their hosts."""

    members: list[StoreMember]
    logs: Path

    @abstractmethod
    def start_member(self, member: StoreMember) -> None:
        """Start one member, anew or again; its files remember what it was."""

    @property
    def endpoints(self) -> list[str]:
        """host:port of every member, for clients."""
        return [member.endpoint for member in self.members]

    def kill_member(self, member: StoreMember) -> None:
        """SIGKILL one member; true on return: it is gone."""
        member.host.kill_all()

    def leader(self) -> StoreMember | None:
        """The member that leads by its own word, None while there is none."""
        for member in self.members:
            status = _post(member, "maintenance/status", {})
            if status and status.get("leader", "0") == status.get("header", {}).get("member_id"):
                return member
        return None

    def wait_until_healthy(self, timeout_s: float) -> None:
        """True on return: every member commits a write. Raises DrillError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not all(_commits(member) for member in self.members):
            if time.monotonic() > deadline:
                raise DrillError(f"etcd is not healthy after {timeout_s:g} s; logs: {self.logs}")
            time.sleep(0.05)

    def get(self, key: str) -> str | None:
        """Value of a key by a linearizable read, None where there is none. Raises DrillError: no answer."""
        for member in self.members:
            found = _post(member, "kv/range", {"key": base64.b64encode(key.encode()).decode()})
            if found is not None:
                kvs = found.get("kvs", [])
                return base64.b64decode(kvs[0].get("value", "")).decode() if kvs else None
        raise DrillError("etcd does not answer")

    def dump(self) -> dict[str, str]:
        """All keys and values. Raises DrillError: no answer."""
        everything = base64.b64encode(b"\0").decode()
        for member in self.members:
            found = _post(member, "kv/range", {"key": everything, "range_end": everything})
            if found is not None:
                return {_text(kv["key"]): _text(kv.get("value", "")) for kv in found.get("kvs", [])}
        raise DrillError("etcd does not answer")


class Store(BaseStore):
    """An etcd cluster with etcd's default timings (heartbeat 100 ms, election 1 s) on hosts of this machine."""

    def __init__(self, hosts: Sequence[Host], logs: Path, taken_ports: set[int]) -> None:
        program = shutil.which("etcd", path="/usr/local/bin:/usr/bin:/bin")
        if program is None:
            raise DrillError("etcd is not installed (Debian and Ubuntu: apt install etcd-server)")
        self._program = program
        self._token = f"drill-{time.time_ns()}"
        self.logs = logs
        self.hosts = {host.name: host for host in hosts}
        self.members = [
            StoreMember(host.name, host, free_port("127.0.0.1", taken_ports), data_dir=host.directory / "etcd")
            for host in hosts
        ]
        self._peer_urls = {host.name: f"http://{host.address}:{free_port('127.0.0.1', taken_ports)}" for host in hosts}

    def start(self, timeout_s: float = 30.0) -> None:
        """True on return: all members run and the store accepts writes."""
        for member in self.members:
            self.start_member(member)
        self.wait_until_healthy(timeout_s)

    def start_member(self, member: StoreMember) -> None:
        host, peer_url = self.hosts[member.name], self._peer_urls[member.name]
        member.process = host.spawn(
            [
                self._program,
                f"--name={member.name}",
                f"--data-dir={member.data_dir}",
                f"--listen-client-urls=http://{member.endpoint}",
                f"--advertise-client-urls=http://{member.endpoint}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster={','.join(f'{name}={url}' for name, url in self._peer_urls.items())}",
                "--initial-cluster-state=new",
                f"--initial-cluster-token={self._token}",
                "--heartbeat-interval=100",
                "--election-timeout=1000",
                "--logger=zap",
                "--log-outputs=stderr",
            ],
            self.logs / f"{member.name}-etcd.log",
        )


def _text(value: str) -> str:
    return base64.b64decode(value).decode(errors="replace")


def _commits(member: StoreMember) -> bool:
    key = base64.b64encode(f"/drill/{member.name}".encode()).decode()
    return _post(member, "kv/put", {"key": key, "value": key}) is not None


def _post(member: StoreMember, method: str, body: dict[str, str]) -> dict[str, Any] | None:
    """One call of etcd's JSON gateway (/v3 since etcd 3.4); None without a proper answer in time."""
    try:
        answer = requests.post(f"http://{member.endpoint}/v3/{method}", json=body, timeout=_REQUEST_TIMEOUT_S)
        return dict(answer.json()) if answer.status_code == 200 else None
    except (requests.RequestException, ValueError):
        return None
