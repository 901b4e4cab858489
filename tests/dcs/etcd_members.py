"""Real etcd for the tests: started on free ports of 127.0.0.1, ended by pid."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from hamgr.dcs import wire
from hamgr.dcs.endpoints import EtcdConfig


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def wait_until(claim: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Returns once the claim is true; fails when it is not within the deadline."""
    ends = time.monotonic() + deadline_s
    while not claim():
        assert time.monotonic() < ends, f"not true within {deadline_s} s"
        time.sleep(0.02)


def _is_stopped(thread: Path) -> bool:
    """By /proc; one that has ended meanwhile does nothing any more either."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return True


async def until(claim: Callable[[], bool | Awaitable[bool]], deadline_s: float = 20.0) -> None:
    """The same on an event loop; the claim may be a coroutine function."""
    async with asyncio.timeout(deadline_s):
        while True:
            true = claim()
            if true if isinstance(true, bool) else await true:
                return
            await asyncio.sleep(0.02)


@dataclass
class EtcdMember:
    """One etcd process; its directory and ports stay over a restart."""

    name: str
    directory: Path
    port: int
    peer_port: int
    scheme: str = "http"
    options: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        client, peer = f"{self.scheme}://{self.host}", f"http://127.0.0.1:{self.peer_port}"
        command = ["etcd", "--name", self.name, "--data-dir", str(self.directory / self.name)]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--log-outputs", str(self.directory / f"{self.name}.log"), "--logger", "zap", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def freeze(self) -> None:
        """On return it stands still: until its last thread has heard of the signal it still answers."""
        self.send(signal.SIGSTOP)
        if self.process is not None:
            wait_until(lambda: all(map(_is_stopped, self._threads())))

    def _threads(self) -> list[Path]:
        assert self.process is not None
        return list(Path(f"/proc/{self.process.pid}/task").iterdir())

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class EtcdCluster:
    """Some members of one etcd."""

    members: list[EtcdMember]

    @classmethod
    def of(cls, size: int, directory: Path, **settings: object) -> EtcdCluster:
        ports = free_ports(2 * size)
        members = [
            EtcdMember(f"e{number}", directory, ports[2 * number], ports[2 * number + 1], **settings)  # type: ignore[arg-type]
            for number in range(size)
        ]
        peers = ",".join(f"{member.name}=http://127.0.0.1:{member.peer_port}" for member in members)
        for member in members:
            member.options = [*member.options, "--initial-cluster", peers]
            member.options += ["--heartbeat-interval", "50", "--election-timeout", "500"]
        return cls(members)

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(member.host for member in self.members)

    def config(self, **settings: object) -> EtcdConfig:
        return EtcdConfig(self.hosts, **{"timeout_s": 5.0, **settings})  # type: ignore[arg-type]

    def member_of(self, host: str) -> EtcdMember:
        return next(member for member in self.members if member.host == host)

    def start(self) -> EtcdCluster:
        for member in self.members:
            member.start()
        return self

    def kill(self) -> None:
        for member in self.members:
            member.kill()


def answers(host: str, credentials: grpc.ChannelCredentials | None = None) -> bool:
    """True when that endpoint carries out a linearizable read (or says that it wants a user)."""
    channel = grpc.secure_channel(host, credentials) if credentials else grpc.insecure_channel(host)
    try:
        wire.TXN.bind(channel)(wire.TxnRequest(success=[_a_range()]), timeout=1.0)
    except grpc.RpcError as failure:
        return "user name is empty" in (failure.details() or "")  # type: ignore[attr-defined]
    finally:
        channel.close()
    return True


def _a_range() -> object:
    return wire.RequestOp(request_range=wire.RangeRequest(key=b"x"))


def started(cluster: EtcdCluster) -> EtcdCluster:
    """The cluster, once each of its members answers."""
    cluster.start()
    try:
        for member in cluster.members:
            wait_until(lambda host=member.host: answers(host))  # type: ignore[misc]
    except BaseException:
        cluster.kill()
        raise
    return cluster
