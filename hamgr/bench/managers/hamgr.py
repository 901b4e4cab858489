"""hamgr under test."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamgr.bench.managers.agents import AgentManager
from hamgr.bench.managers.manager import NODES, Ground, Node
from hamgr.drill.accounts import interpreter_for, own
from hamgr.drill.errors import DrillError
from hamgr.drill.member import Member


@dataclass(slots=True, kw_only=True)
class HamgrNode(Node):
    """A node with guard and agent, which a drill's Member finds and starts."""

    member: Member

    @property
    def rest_url(self) -> str | None:
        return self.member.rest_url

    def start(self) -> None:
        self.member.start()

    def is_running(self) -> bool:
        return self.member.has_guard()

    def agent_pids(self) -> list[int]:
        return [self.member.agent_pid()]

    def manager_pids(self) -> list[int]:
        """Guard and agent."""
        found = []
        for pid_of in (self.member.guard_pid, self.member.agent_pid):
            with contextlib.suppress(DrillError):
                found.append(pid_of())
        if not found:
            raise DrillError(f"{self.name}: neither guard nor agent runs")
        return found


class Hamgr(AgentManager):
    """hamgr from this source tree."""

    def __init__(self, ground: Ground, dynamic: Mapping[str, Any]) -> None:
        super().__init__(ground, dynamic)
        python = interpreter_for(ground.account, ground.logs.parent)
        rest_ports = self.ports()
        self._nodes = [self._node(name, rest_ports[name], python) for name in NODES]
        self.nodes = self._nodes
        self.write_files("hamgr.yml", rest_ports)

    def _node(self, name: str, rest_port: int, python: Path) -> HamgrNode:
        ground, host = self.ground, self.ground.hosts[name]
        own(host.directory / "run", ground.account)
        postgres_port, log = ground.port(), ground.logs / f"{name}.log"
        member = Member(
            name=name,
            host=host,
            rest_port=rest_port,
            postgres_port=postgres_port,
            password=ground.password,
            log=log,
            python=python,
        )
        return HamgrNode(
            name=name,
            host=host,
            postgres_port=postgres_port,
            password=ground.password,
            log=log,
            disk=ground.disks.get(name),
            member=member,
        )

    def further_settings(self, node: Node) -> Mapping[str, Any]:
        return {"guard": {"runtime_dir": str(node.host.directory / "run")}}

    def restlessness(self) -> str:
        for node in self._nodes:
            if not node.member.is_in_place():
                said = node.member.says()
                return f"{node.name} is {said.get('role', 'silent')}, {said.get('state', 'no state')}"
        return ""
