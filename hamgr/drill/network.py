"""Hosts as network namespaces on one switch, and addresses and ports that nobody else uses.

The switch is a bridge in a namespace of its own: the machine's firewall (Docker sets FORWARD to DROP) does
not see what passes between hosts, and nothing is left in the machine's namespace but one link, which vanishes
with the switch.
"""

from __future__ import annotations

import random
import secrets
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hamgr.drill.accounts import Account, own
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host
from hamgr.drill.machine import Machine, Wiring

_LOWEST_PORT, _HIGHEST_PORT = 20_000, 32_000
"""Below Linux's range for outgoing connections (32768 up), which the client would otherwise draw from."""


class Network(Wiring):
    """A switch and hosts plugged into it, reachable from this process too. Needs root."""

    def __init__(self, names: Sequence[str], directory: Path, account: Account | None) -> None:
        super().__init__()
        self._subnet = free_subnet()
        # Two networks of one process, or of processes in several PID namespaces, must not share a link's name.
        self._prefix = f"hg{secrets.token_hex(4)}"
        self.hosts: dict[str, Host] = {}
        self.switch = Host("switch", "", own(directory / "switch", None), None, netns=True)
        try:
            self._set_up_switch()
            for number, name in enumerate(names, start=10):
                self.hosts[name] = self._plug_in(name, number, own(directory / name, account), account)
        except DrillError:
            self.close()
            raise

    def cut(self, host: Machine) -> None:
        host.run(["ip", "link", "set", "eth0", "down"], as_account=False)

    def mend(self, host: Machine) -> None:
        host.run(["ip", "link", "set", "eth0", "up"], as_account=False)

    def close(self) -> None:
        """End all hosts; links and namespaces vanish with them."""
        for host in (*self.hosts.values(), self.switch):
            host.close()

    def _set_up_switch(self) -> None:
        inside, outside = f"{self._prefix}i", f"{self._prefix}o"
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", str(self.switch.pid))
        _ip("addr", "add", f"{self._subnet}.1/24", "dev", outside)
        _ip("link", "set", outside, "up")
        for line in (
            "link add br0 type bridge",
            f"link set {inside} master br0 up",
            "link set br0 up",
            "link set lo up",
        ):
            self.switch.run(["ip", *line.split()], as_account=False)

    def _plug_in(self, name: str, number: int, directory: Path, account: Account | None) -> Host:
        host = Host(name, f"{self._subnet}.{number}", directory, account, netns=True)
        self.hosts[name] = host
        near, far = f"{self._prefix}a{number}", f"{self._prefix}b{number}"
        _ip("link", "add", far, "type", "veth", "peer", "name", near)
        _ip("link", "set", near, "netns", str(self.switch.pid))
        _ip("link", "set", far, "netns", str(host.pid))
        self.switch.run(["ip", "link", "set", near, "master", "br0", "up"], as_account=False)
        for line in (
            "link set lo up",
            f"link set {far} name eth0",
            f"addr add {host.address}/24 dev eth0",
            "link set eth0 up",
        ):
            host.run(["ip", *line.split()], as_account=False)
        return host


def _ip(*arguments: str) -> None:
    ran = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise DrillError(f"ip {' '.join(arguments)}: {ran.stderr.strip()}")


def free_subnet() -> str:
    """First three numbers of a /24 within 10.0.0.0/8 that no route of this machine mentions."""
    routes = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True)
    for _ in range(100):
        subnet = f"10.{random.randint(100, 250)}.{random.randint(0, 255)}"
        if f"{subnet}." not in routes.stdout:
            return subnet
    raise DrillError("no free 10.x.y.0/24 network on this machine")


def free_port(address: str, taken: set[int]) -> int:
    """A port that nobody listens on at `address`, outside the range of outgoing connections.

    It is added to `taken`, so that ports handed out but not bound yet differ.
    """
    for _ in range(1000):
        port = random.randint(_LOWEST_PORT, _HIGHEST_PORT)
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        taken.add(port)
        return port
    raise DrillError(f"no free port at {address}")
