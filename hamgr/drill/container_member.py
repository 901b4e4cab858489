"""A member and an etcd member that each are a container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hamgr.drill.base_member import BaseMember
from hamgr.drill.containers import Container
from hamgr.drill.errors import DrillError
from hamgr.drill.freezing import state_of
from hamgr.drill.store import BaseStore, StoreMember
from hamgr.drill.subreaper import descendants

STORE_PORT = 2379


@dataclass(slots=True, kw_only=True)
class ContainerMember(BaseMember):
    """Its guard is the container's first process; agent and server are children of it."""

    host: Container

    def start(self) -> None:
        self.host.start()

    def guard_pid(self) -> int:
        return self.host.pid()

    def agent_pid(self) -> int:
        return self._first("hamgr-agent")

    def postmaster_pid(self) -> int:
        return self._first("postgres")

    def wait_until_guard_ended(self) -> None:
        raise DrillError("a container ends with its guard, and is started again by its restart policy")

    def _first(self, command: str) -> int:
        """The process of that name nearest to the guard; a postmaster stands before its children."""
        for pid in descendants(self.guard_pid()):
            if _command_of(pid) == command and state_of(pid) not in ("", "Z"):
                return pid
        raise DrillError(f"{self.name}: no running {command}")


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


class ContainerStore(BaseStore):
    """An etcd cluster of containers."""

    def __init__(self, containers: Sequence[Container], logs: Path) -> None:
        self.logs = logs
        self._containers = {container.name: container for container in containers}
        self.members = [StoreMember(container.name, container, STORE_PORT) for container in containers]

    def start_member(self, member: StoreMember) -> None:
        self._containers[member.name].start()
