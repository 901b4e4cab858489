"""etcd as the authority of hamgr and Patroni."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

import requests

from hamgr.bench.managers.manager import Authority, Undo
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host
from hamgr.drill.store import Store, StoreMember

ETCD_HOSTS = ("etcd1", "etcd2", "etcd3")

_HEALTHY_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 5.0
_PROPOSALS = "etcd_server_proposals_applied_total"


class Etcd(Authority):
    """A drill's store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.hosts: Sequence[Host] = list(store.hosts.values())

    def freeze(self) -> Undo:
        processes = [member.process for member in self.store.members if member.process is not None]
        for process in processes:
            process.send(signal.SIGSTOP)

        def undo() -> None:
            for process in processes:
                process.send(signal.SIGCONT)
            self.store.wait_until_healthy(_HEALTHY_TIMEOUT_S)

        return undo

    def kill_leader(self) -> Undo:
        leader = self._leader()
        self.store.kill_member(leader)

        def undo() -> None:
            self.store.start_member(leader)
            self.store.wait_until_healthy(_HEALTHY_TIMEOUT_S)

        return undo

    def pids(self) -> list[int]:
        return [member.process.pid for member in self.store.members if member.process is not None]

    def counters(self) -> Mapping[str, float]:
        """Revisions: transactions that wrote keys. Proposals: everything that went through its log, leases too."""
        leader = self._leader()
        try:
            status = requests.post(
                f"http://{leader.endpoint}/v3/maintenance/status", json={}, timeout=_ANSWER_TIMEOUT_S
            )
            metrics = requests.get(f"http://{leader.endpoint}/metrics", timeout=_ANSWER_TIMEOUT_S)
            revision = float(status.json()["header"]["revision"])
        except (requests.RequestException, ValueError, KeyError) as error:
            raise DrillError(f"etcd at {leader.endpoint}: {error}") from error
        return {"revisions": revision, "proposals": sample(metrics.text, _PROPOSALS)}

    def _leader(self) -> StoreMember:
        leader = self.store.leader()
        if leader is None:
            raise DrillError("etcd has no leader")
        return leader


def sample(exposition: str, name: str) -> float:
    """Value of a sample without labels in Prometheus' text format. Raises DrillError where there is none."""
    for line in exposition.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise DrillError(f"no sample {name}")
