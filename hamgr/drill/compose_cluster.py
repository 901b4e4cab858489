"""A cluster of containers, as docker-compose.yml has it, with HAProxy and PgBouncer in front."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import psycopg
import yaml

from hamgr.drill.accounts import own
from hamgr.drill.base_cluster import BaseCluster
from hamgr.drill.client import QUIET, Route, conninfo
from hamgr.drill.compose_project import MEMBERS, REST_USER, STORES, ComposeProject
from hamgr.drill.container_member import ContainerMember, ContainerStore
from hamgr.drill.containers import Container, ContainerNetwork
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, loopback_hosts
from hamgr.drill.plan import Plan, Via

_REST_PORT = 8008
_POSTGRES_PORT = 5432
_WRITE_PORT = 5000
_POOL_PORT = 6432
"""Within the network, as docker-compose.yml and its configuration files have them."""

_PARAMETERS = {"max_connections": 300, "shared_buffers": "64MB"}
"""As on other hosts of a drill: sessions that wait for a standby which does not come stay for as long."""

_MOST_RESTARTS = 5
"""While one and the same thing is awaited."""
_LOOK_S = 2.0
_SAME_WAIT_S = 10.0
"""Looks that are further apart belong to different waits."""
_ROUTE_TIMEOUT_S = 60.0


class ComposeCluster(BaseCluster):
    """Containers of this machine's Docker engine. The client is a program of this machine."""

    network: ContainerNetwork

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.logs = own(plan.directory / "logs", None)
        self._looked_s = 0.0
        self._restarts: dict[str, int] = {}
        member_file = plan.directory / "hamgr.yml"
        self._project = ComposeProject(member_file)
        base = yaml.safe_load((self._project.file.parent / "config" / "docker" / "hamgr.yml").read_text())
        member_file.write_text(yaml.safe_dump(drilled(base, plan), sort_keys=False))
        self.password = self._project.password("SUPERUSER")
        self.network = ContainerNetwork(self._project.network_name)
        self._client_host = loopback_hosts(["client"], own(plan.directory / "hosts", None), None)["client"]
        try:
            self._project.up()
            self._containers = {
                name: Container(name, address, self._project.container_name(name))
                for name, address in self._project.addresses().items()
            }
            self.store = ContainerStore([self.container(name) for name in STORES], self.logs)
            self.members = [self._member(self.container(name)) for name in MEMBERS]
        except BaseException:
            self.close()
            raise

    def container(self, service: str) -> Container:
        """By the service's name. Raises DrillError where it does not run."""
        if service not in self._containers:
            raise DrillError(f"the service {service} does not run; logs: {self.logs}")
        return self._containers[service]

    def _member(self, container: Container) -> ContainerMember:
        return ContainerMember(
            name=container.name,
            host=container,
            rest_port=_REST_PORT,
            postgres_port=_POSTGRES_PORT,
            password=self.password,
            rest_login=(REST_USER, self._project.password("RESTAPI")),
            log=self.logs / "containers.log",
        )

    @property
    def client_host(self) -> Host:
        return self._client_host

    @property
    def route(self) -> Route | None:
        names = {f"{member.host.address}:{member.postgres_port}": member.name for member in self.members}
        if self.plan.via is Via.HAPROXY:
            dsn = conninfo(self.container("haproxy").address, _WRITE_PORT)
            return Route(f"{dsn} {QUIET}", self.password, names)
        if self.plan.via is Via.PGBOUNCER:
            # It knows the application's role only, and takes no options.
            dsn = conninfo(self.container("pgbouncer").address, _POOL_PORT, user="app")
            return Route(dsn, self._project.password("APP"), names)
        return None

    def start(self, timeout_s: float = 180.0) -> None:
        self.wait_until_settled(timeout_s)
        for member in self.members:
            member.postmaster_pid()  # DrillError where the engine is on another machine
        self._wait_until_routed()

    def _wait_until_routed(self) -> None:
        """A session reaches the primary the way that the plan has for it."""
        route, deadline = self.route, time.monotonic() + _ROUTE_TIMEOUT_S
        while route is not None:
            try:
                with psycopg.connect(route.conninfo, password=route.password, autocommit=True) as connection:
                    connection.execute("SELECT 1")
                return
            except psycopg.Error as error:
                if time.monotonic() > deadline:
                    raise DrillError(f"no way through {self.plan.via.value}: {error}") from error
                time.sleep(0.2)

    def check_alive(self) -> None:
        """Docker starts a container again and again, with longer and longer pauses."""
        since_look_s = time.monotonic() - self._looked_s
        if since_look_s < _LOOK_S:
            return
        self._looked_s += since_look_s
        now = {member.name: self.container(member.name).state()["RestartCount"] for member in self.members}
        if since_look_s > _SAME_WAIT_S:
            self._restarts = now
        for name, count in now.items():
            if count > self._restarts[name] + _MOST_RESTARTS:
                self.gather_logs()
                raise DrillError(f"{name} ends again and again; logs: {self.logs}")

    def gather_logs(self) -> None:
        (self.logs / "containers.log").write_text(self._project.logs())

    def close(self) -> None:
        with ExitStack() as rest:  # each of them, even if another fails; the last one first
            rest.callback(self._project.down)
            rest.callback(self._client_host.close)


def drilled(settings: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The members' file with what the plan asks for. It holds no passwords: those come from the environment."""
    made = dict(settings)
    dcs = {**settings["bootstrap"]["dcs"], "ttl": plan.ttl_s, "synchronous_mode": plan.synchronous_mode, **plan.dcs}
    dcs["postgresql"] = {"parameters": _PARAMETERS}
    # A change of leader begins a segment, and a drill has more of them in minutes than others in years.
    initdb = [*settings["bootstrap"]["initdb"], {"wal-segsize": 1}]
    made["bootstrap"] = {**settings["bootstrap"], "dcs": dcs, "initdb": initdb}
    return made
