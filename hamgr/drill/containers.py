"""Containers as hosts: what Docker's command line does to them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from hamgr.drill.errors import DrillError
from hamgr.drill.machine import Machine, Wiring

_DOCKER_TIMEOUT_S = 60.0


def docker(*arguments: str, timeout_s: float = _DOCKER_TIMEOUT_S) -> str:
    """Run `docker ARGUMENTS` and return what it printed. Raises DrillError, with Docker's own words."""
    return run(["docker", *arguments], timeout_s)


def run(argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it printed. Raises DrillError unless it exits with 0."""
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DrillError(f"{' '.join(argv)}: {error}") from error
    if ran.returncode != 0:
        raise DrillError(f"{' '.join(argv)}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


class Container(Machine):
    """A container of this machine's engine. Its processes are seen and signalled by this machine's pids (root)."""

    def __init__(self, name: str, address: str, container_name: str) -> None:
        super().__init__(name, address)
        self.container_name = container_name

    def state(self) -> dict[str, Any]:
        """Docker's account of it: `State` and `RestartCount` of `docker inspect`. Raises DrillError."""
        found = json.loads(docker("inspect", "--type", "container", self.container_name))[0]
        return {**found["State"], "RestartCount": found["RestartCount"]}

    def pid(self) -> int:
        """Of its first process, on this machine. Raises DrillError while it does not run."""
        pid = int(self.state()["Pid"])
        if pid == 0:
            raise DrillError(f"{self.container_name} does not run")
        return pid

    def start(self) -> None:
        """True on return: it runs. One that runs already is left alone."""
        docker("start", self.container_name)

    def restart(self, timeout_s: int) -> None:
        """In order: SIGTERM, SIGKILL after `timeout_s`, and started again."""
        docker("restart", "--time", str(timeout_s), self.container_name, timeout_s=timeout_s + _DOCKER_TIMEOUT_S)

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, as_account: bool = True) -> str:
        """A program of this machine in the container's network, as root."""
        return run(["nsenter", f"--net=/proc/{self.pid()}/ns/net", *argv], timeout_s)

    def kill_all(self) -> int:
        """Docker does not start again what was killed through it, and does not say how many processes there were."""
        docker("kill", self.container_name)
        return 0

    def freeze_all(self) -> None:
        docker("pause", self.container_name)

    def thaw_all(self) -> None:
        docker("unpause", self.container_name)


class ContainerNetwork(Wiring):
    """A network of Docker's, from which containers are taken and to which they come back with the same address."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def cut(self, host: Machine) -> None:
        docker("network", "disconnect", self.name, _name_of(host))

    def mend(self, host: Machine) -> None:
        docker("network", "connect", "--ip", host.address, self.name, _name_of(host))


def _name_of(host: Machine) -> str:
    assert isinstance(host, Container)
    return host.container_name
