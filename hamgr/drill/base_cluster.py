"""The cluster under drill, wherever it runs: who leads, and whether everybody is in place."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from hamgr.drill.base_member import BaseMember
from hamgr.drill.client import Route
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host
from hamgr.drill.machine import Wiring
from hamgr.drill.plan import Plan
from hamgr.drill.predicted import Gap
from hamgr.drill.server import Standing
from hamgr.drill.store import BaseStore


class BaseCluster(ABC):
    """Hosts, store and members of one drill. Built stopped; `start` forms it; `close` leaves nothing."""

    plan: Plan
    logs: Path
    password: str
    """Of PostgreSQL's superuser."""
    members: Sequence[BaseMember]
    store: BaseStore
    network: Wiring | None
    """None where hosts share one address."""

    @property
    @abstractmethod
    def client_host(self) -> Host:
        """Where the client runs. It reaches every member whatever happens to the network between members."""

    @property
    def route(self) -> Route | None:
        """How an application reaches the primary; None: it knows all members."""
        return None

    @property
    def predicted_gaps(self) -> Mapping[str, Gap]:
        """Write gap by scenario, as the product predicts it for this cluster's configuration; empty: not known."""
        return {}

    @property
    def targets(self) -> dict[str, str]:
        """Member name -> conninfo without password, for the client."""
        return {member.name: member.dsn for member in self.members}

    @abstractmethod
    def start(self, timeout_s: float = 90.0) -> None:
        """True on return: etcd runs and the members form a cluster. Raises DrillError otherwise."""

    def start_member(self, member: BaseMember) -> None:
        """Start a member's guard and agent, for the first time or again."""
        member.start()

    def ensure_started(self, member: BaseMember) -> None:
        """Start a member's guard and agent unless a guard of it runs, whoever started that."""
        if not member.has_guard():
            member.start()

    @abstractmethod
    def close(self) -> None:
        """End everything."""

    @abstractmethod
    def check_alive(self) -> None:
        """Raise DrillError for a member whose guard ended by itself: it will not settle any more."""

    @abstractmethod
    def gather_logs(self) -> None:
        """Everything that was logged is in the folder of logs."""

    def leader(self) -> BaseMember | None:
        """The one member whose REST says that it is primary; None while there is none or more than one."""
        leaders = [member for member in self.members if member.is_leader()]
        return leaders[0] if len(leaders) == 1 else None

    def need_leader(self) -> BaseMember:
        """The leader. Raises DrillError when there is none."""
        leader = self.leader()
        if leader is None:
            raise DrillError("no member answers /primary with 200 (or several do)")
        return leader

    def replicas(self) -> list[BaseMember]:
        """All members but the leader."""
        leader = self.need_leader()
        return [member for member in self.members if member is not leader]

    def wait_until_settled(self, timeout_s: float) -> BaseMember:
        """The leader, as soon as every member is leader or streaming replica on its timeline.

        Judged by REST and by SQL, which must agree. Raises DrillError with what is missing and the folder of
        logs after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while missing := self.unsettled():
            self.check_alive()
            if time.monotonic() > deadline:
                raise DrillError(f"not settled after {timeout_s:g} s: {missing}; logs: {self.logs}")
            time.sleep(0.1)
        return self.need_leader()

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
