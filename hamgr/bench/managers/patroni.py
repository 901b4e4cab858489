"""Patroni under test, from its public package."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from hamgr.bench.managers.agents import AgentManager
from hamgr.bench.managers.manager import NODES, Ground, Node
from hamgr.drill.accounts import Account
from hamgr.drill.errors import DrillError

_ANSWER_TIMEOUT_S = 3.0
_AT_WORK = {"leader": {"running"}, "replica": {"streaming"}}
"""Role -> states of a member that has nothing to do, as GET /cluster names them."""


@dataclass(slots=True, kw_only=True)
class PatroniNode(Node):
    """A node with one daemon, which starts the server as an orphan. Nobody starts the daemon again."""

    program: Path
    rest_port: int

    @property
    def config_path(self) -> Path:
        return self.host.directory / "patroni.yml"

    @property
    def rest_url(self) -> str | None:
        return f"http://{self.host.address}:{self.rest_port}"

    def start(self) -> None:
        self.process = self.host.spawn([str(self.program), str(self.config_path)], self.log)

    def agent_pids(self) -> list[int]:
        return self.manager_pids()[:1]


class Patroni(AgentManager):
    """Patroni as installed at `program`, without a watchdog device."""

    def __init__(self, ground: Ground, dynamic: Mapping[str, Any], program: Path) -> None:
        super().__init__(ground, dynamic)
        patroni_version(program, ground.account)
        rest_ports = self.ports()
        self.nodes = [
            PatroniNode(
                name=name,
                host=ground.hosts[name],
                postgres_port=ground.port(),
                password=ground.password,
                log=ground.logs / f"{name}.log",
                disk=ground.disks.get(name),
                program=program,
                rest_port=rest_ports[name],
            )
            for name in NODES
        ]
        self.write_files("patroni.yml", rest_ports)

    def further_settings(self, node: Node) -> Mapping[str, Any]:
        return {"watchdog": {"mode": "off"}}

    def restlessness(self) -> str:
        try:
            answer = requests.get(f"{self.nodes[0].rest_url}/cluster", timeout=_ANSWER_TIMEOUT_S)
            members = answer.json()["members"]
        except (requests.RequestException, ValueError, KeyError) as error:
            return f"GET /cluster: {error}"
        return unrest_among(members)


def unrest_among(members: list[dict[str, Any]]) -> str:
    """What keeps the members of GET /cluster from being one leader and replicas that stream; empty if nothing. Pure."""
    for member in members:
        if member.get("state") not in _AT_WORK.get(str(member.get("role")), set()):
            return f"{member.get('name')} is {member.get('role')}, {member.get('state')}"
    leaders = [member for member in members if member.get("role") == "leader"]
    if len(members) != len(NODES) or len(leaders) != 1:
        return f"{len(members)} members, {len(leaders)} of them leaders"
    return ""


def patroni_version(program: Path, account: Account | None) -> str:
    """What `patroni --version` says, run as the servers' account. Raises DrillError where that cannot run it."""
    try:
        ran = subprocess.run(
            [str(program), "--version"],
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise DrillError(f"cannot run {program}: {error}; scripts/bench installs Patroni") from error
    return ran.stdout.split()[-1]
