"""What hamgr and Patroni have in common: etcd, one YAML file with the same keys, a REST server on each node."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
import yaml

from hamgr.bench.managers.etcd import ETCD_HOSTS, Etcd
from hamgr.bench.managers.manager import INITDB_OPTIONS, NODES, SERVER_PARAMETERS, Ground, Manager, Node, write_secret
from hamgr.drill.accounts import own
from hamgr.drill.errors import DrillError
from hamgr.drill.programs import postgres_bin_dir
from hamgr.drill.store import Store

_SWITCHOVER_TIMEOUT_S = 90.0


class AgentManager(Manager):
    """A manager with an agent beside each server, and etcd. `dynamic`: keys of bootstrap.dcs, the variant's own."""

    def __init__(self, ground: Ground, dynamic: Mapping[str, Any]) -> None:
        self.ground = ground
        self.dynamic = dynamic
        self.store = Store([ground.hosts[name] for name in ETCD_HOSTS], ground.logs, ground.taken_ports)
        self.authority = Etcd(self.store)

    def form(self) -> None:
        self.store.start()
        for node in self.nodes:
            node.start()

    def switch_over(self, primary: Node) -> None:
        try:
            answer = requests.post(
                f"{primary.rest_url}/switchover", json={"leader": primary.name}, timeout=_SWITCHOVER_TIMEOUT_S
            )
        except requests.RequestException as error:
            raise DrillError(f"POST /switchover to {primary.name}: {error}") from error
        if answer.status_code >= 300:
            raise DrillError(f"{primary.name} refused the switchover: {answer.status_code} {answer.text}")

    @abstractmethod
    def further_settings(self, node: Node) -> Mapping[str, Any]:
        """Top-level keys of a node's file that only this manager has."""

    def write_files(self, name: str, rest_ports: Mapping[str, int]) -> dict[str, Path]:
        """Each node's configuration file, called `name`, below its host's directory. Returns them by node."""
        paths = {}
        for node in self.nodes:
            own(node.host.directory / "socket", self.ground.account)
            settings = {
                **node_settings(node, rest_ports[node.name], self.store.endpoints, self.ground.subnet, self.dynamic),
                **self.further_settings(node),
            }
            paths[node.name] = node.host.directory / name
            write_secret(paths[node.name], yaml.safe_dump(settings, sort_keys=False), self.ground.account)
        return paths

    def ports(self) -> dict[str, int]:
        """A port for each node's REST."""
        return {name: self.ground.port() for name in NODES}


def node_settings(
    node: Node, rest_port: int, etcd_hosts: Sequence[str], subnet: str, dynamic: Mapping[str, Any]
) -> dict[str, Any]:
    """The file as hamgr and Patroni both read it."""
    rest, server = f"{node.host.address}:{rest_port}", f"{node.host.address}:{node.postgres_port}"
    initdb = [option.removeprefix("--") for option in INITDB_OPTIONS]
    roles = {"superuser": "postgres", "replication": "replicator", "rewind": "rewinder"}
    return {
        "scope": "bench",
        "name": node.name,
        "restapi": {"listen": rest, "connect_address": rest},
        "etcd3": {"hosts": list(etcd_hosts)},
        "bootstrap": {
            "dcs": {**dynamic, "postgresql": {"use_pg_rewind": True, "parameters": dict(SERVER_PARAMETERS)}},
            "initdb": [_option(text) for text in initdb],
        },
        "postgresql": {
            "listen": server,
            "connect_address": server,
            "data_dir": str(node.data_dir),
            "bin_dir": str(postgres_bin_dir()),
            "authentication": {
                role: {"username": username, "password": node.password} for role, username in roles.items()
            },
            "parameters": {"unix_socket_directories": str(node.host.directory / "socket")},
            "pg_hba": [
                "local all all scram-sha-256",
                f"host all all {subnet} scram-sha-256",
                f"host replication replicator {subnet} scram-sha-256",
            ],
        },
    }


def _option(text: str) -> str | dict[str, str]:
    name, has_value, value = text.partition("=")
    # Patroni takes strings only.
    return {name: value} if has_value else name
