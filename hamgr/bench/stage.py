"""One cluster under one manager: hosts as network namespaces, its authority, three nodes, and who is primary by SQL."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hamgr.bench.managers.manager import NODES, Ground, Manager, Node
from hamgr.bench.variants import Variant
from hamgr.drill.accounts import Account, own
from hamgr.drill.base_cluster import why_unsettled
from hamgr.drill.disks import Disk, Keeper, make_disks
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host
from hamgr.drill.network import Network
from hamgr.drill.server import Standing

CLIENT_HOST = "client"

_DISK_BYTES = 512 << 20
"""Of each node's disk, for data and WAL. The image is sparse."""

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What to build. `directory`: empty or not there yet, one that the servers' account can reach."""

    directory: Path
    variant: Variant
    account: Account | None
    patroni: Path
    disks: bool = False
    """Whether each node's data directory lies on a small disk of its own."""


class Stage:
    """Built stopped; `form` makes the cluster; `close` leaves nothing but files."""

    def __init__(self, plan: StagePlan) -> None:
        self.plan = plan
        self.password = secrets.token_hex(16)
        self.logs = own(plan.directory / "logs", None)
        self._keeper: Keeper | None = None
        names = [*NODES, *plan.variant.authority_hosts, CLIENT_HOST]
        self.network = Network(names, own(plan.directory / "hosts", None), plan.account)
        try:
            self.manager = self._make_manager()
        except BaseException:
            self.close()
            raise

    def _make_manager(self) -> Manager:
        plan, hosts = self.plan, self.network.hosts
        disks = self._make_disks() if plan.disks else {}
        ground = Ground(hosts, self.logs, plan.account, self.password, disks)
        return plan.variant.manager(ground, plan.patroni)

    def _make_disks(self) -> dict[str, Disk]:
        made: list[Disk] = []
        try:
            for name in NODES:
                make_disks(self.network.hosts[name].directory, {"data": _DISK_BYTES}, self.plan.account, made)
        finally:
            # Even after a failure half-way: what was mounted is taken away.
            self._keeper = Keeper(made)
        return dict(zip(NODES, made, strict=True))

    @property
    def client_host(self) -> Host:
        return self.network.hosts[CLIENT_HOST]

    @property
    def nodes(self) -> list[Node]:
        return list(self.manager.nodes)

    @property
    def targets(self) -> dict[str, str]:
        """Node -> conninfo without password, for the client."""
        return {node.name: node.dsn for node in self.nodes}

    def form(self, timeout_s: float) -> None:
        """True on return: three nodes are a cluster, by PostgreSQL and by the manager. Raises DrillError."""
        self.manager.form()
        self.wait_until_settled(timeout_s)
        self.wait_until_at_rest(timeout_s)

    def wait_until_settled(self, timeout_s: float) -> Node:
        """The primary, as soon as one server is that and all others stream from it, by their own word.

        Raises DrillError with what is missing after `timeout_s`, or when a node's manager has ended.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._check_alive()
            standings = self.standings()
            missing = unsettled(standings)
            if not missing:
                return self._named(sole_primary(standings))
            if time.monotonic() > deadline:
                raise DrillError(f"not settled after {timeout_s:g} s: {missing}")
            time.sleep(_LOOK_EVERY_S)

    def wait_until_at_rest(self, timeout_s: float) -> None:
        """True on return: the manager has nothing to do by its own word. Raises DrillError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while unrest := self.manager.restlessness():
            if time.monotonic() > deadline:
                raise DrillError(f"{self.plan.variant.product} is not at rest after {timeout_s:g} s: {unrest}")
            time.sleep(_LOOK_EVERY_S)

    def _check_alive(self) -> None:
        """Raise DrillError for a node whose daemons ended by themselves: it will not settle any more."""
        for node in self.nodes:
            if not node.is_running():
                raise DrillError(f"the manager on {node.name} has ended; see {node.log.name}")

    def standings(self) -> dict[str, Standing | None]:
        """What each server says of itself."""
        return {node.name: node.standing() for node in self.nodes}

    def primary(self) -> Node:
        """The one server that is primary by its own word. Raises DrillError where there is none, or several."""
        return self._named(sole_primary(self.standings()))

    def _named(self, name: str | None) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise DrillError("no server is primary, or several are")

    def keep_logs(self, folder: Path) -> None:
        """Copy all logs to `folder`, which must not be there yet."""
        shutil.copytree(self.logs, folder)
        for node in self.nodes:
            for log in node.further_logs:
                if log.exists():
                    shutil.copy(log, folder / f"{node.name}-{log.name}")

    def close(self) -> None:
        """End everything. Files stay, but those on disks of nodes: they go with the disks."""
        with ExitStack() as rest:  # each of them, even if another fails; the last one first
            if self._keeper is not None:
                rest.callback(self._keeper.close)
            rest.callback(self.network.close)
            if self._keeper is not None:
                rest.callback(self._keeper.thaw_all)


def sole_primary(standings: Mapping[str, Standing | None]) -> str | None:
    """Name of the one server that is primary by its own word; None where there is none, or several. Pure."""
    primaries = [name for name, standing in standings.items() if standing is not None and standing.is_primary]
    return primaries[0] if len(primaries) == 1 else None


def unsettled(standings: Mapping[str, Standing | None]) -> str:
    """What contradicts one server being primary and all others streaming from it; empty: nothing. Pure."""
    primary = sole_primary(standings)
    if primary is None:
        said = (f"{name} {_word(standing)}" for name, standing in standings.items())
        return f"no primary, or several: {', '.join(said)}"
    return why_unsettled(primary, standings)


def _word(standing: Standing | None) -> str:
    if standing is None:
        return "is silent"
    return "is primary" if standing.is_primary else "is standby"
