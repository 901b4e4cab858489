"""A member of the cluster under drill, wherever it runs: what it says of itself, and which processes it is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import requests

from hamgr.drill.client import conninfo
from hamgr.drill.clocks import WallClock
from hamgr.drill.disks import Disk
from hamgr.drill.errors import DrillError
from hamgr.drill.machine import Machine
from hamgr.drill.server import Standing, standing_of

_CONFIG_TIMEOUT_S = 10.0
_REST_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class MemberDisks:
    """Disks of one member alone: for the data directory, for WAL, and one for whatever a session writes elsewhere."""

    data: Disk
    wal: Disk
    spare: Disk


@dataclass(slots=True, kw_only=True)
class BaseMember(ABC):
    """One database host with an agent, as it can be seen and signalled from outside."""

    name: str
    host: Machine
    rest_port: int
    postgres_port: int
    password: str
    rest_login: tuple[str, str] | None = None
    """User and password of its REST, where that asks for them."""
    log: Path
    clock: WallClock | None = None
    """Of its own, where the plan gives it one."""
    disks: MemberDisks | None = None

    @property
    def rest_url(self) -> str:
        return f"http://{self.host.address}:{self.rest_port}"

    @property
    def dsn(self) -> str:
        """libpq's connection string, without the password."""
        return conninfo(self.host.address, self.postgres_port)

    @abstractmethod
    def start(self) -> None:
        """Start guard, agent and, through them, the server; returns at once."""

    @abstractmethod
    def postmaster_pid(self) -> int:
        """Of the server that runs here. Raises DrillError when there is none."""

    @abstractmethod
    def guard_pid(self) -> int:
        """Of the process that was started as `hamgr agent FILE`, or of the one that took its place.

        Raises DrillError when there is none.
        """

    @abstractmethod
    def agent_pid(self) -> int:
        """The agent of this member, whoever is its parent by now. Raises DrillError when there is none just now."""

    @abstractmethod
    def wait_until_guard_ended(self) -> None:
        """The guard that was started is gone. Raises DrillError after five seconds."""

    def has_guard(self) -> bool:
        """Whether a guard of this member runs, whoever started it."""
        try:
            return self.guard_pid() > 0
        except DrillError:
            return False

    def get(self, path: str) -> requests.Response | None:
        """Answer of the member's REST, whatever its code; None when there is none within a second."""
        try:
            return requests.get(f"{self.rest_url}{path}", timeout=_REST_TIMEOUT_S)
        except requests.RequestException:
            return None

    def says(self) -> dict[str, Any]:
        """Body of GET /patroni; empty when there is no proper answer."""
        answer = self.get("/patroni")
        try:
            body = answer.json() if answer is not None else {}
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    def order(self, method: str, path: str, body: Mapping[str, Any], timeout_s: float) -> requests.Response:
        """Answer of the member's REST to what changes something. Raises DrillError when there is none in time."""
        url, login = f"{self.rest_url}{path}", self.rest_login
        try:
            return requests.request(method, url, json=body, timeout=timeout_s, auth=login)
        except requests.RequestException as error:
            raise DrillError(f"{method} {path} to {self.name}: {error}") from error

    def set_parameter(self, name: str, value: str | None) -> None:
        """The cluster's servers have that PostgreSQL parameter (None: its default), this one with certainty.

        Raises DrillError if the configuration is refused or not in force here within ten seconds.
        """
        patch = {"postgresql": {"parameters": {name: value}}}
        answer = self.order("PATCH", "/config", patch, _CONFIG_TIMEOUT_S)
        if answer.status_code != 200:
            raise DrillError(f"{self.name} refused {name}: {answer.status_code} {answer.text}")
        deadline = time.monotonic() + _CONFIG_TIMEOUT_S
        while self._shows(name) != (value or ""):
            if time.monotonic() > deadline:
                raise DrillError(f"{self.name} does not have {name} = {value!r} in force; see {self.log}")
            time.sleep(0.05)

    def _shows(self, name: str) -> str | None:
        try:
            with psycopg.connect(self.dsn, password=self.password, autocommit=True) as connection:
                row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        except psycopg.Error:
            return None
        return str(row[0]) if row is not None else None

    def is_leader(self) -> bool:
        """Whether GET /primary answers 200."""
        answer = self.get("/primary")
        return answer is not None and answer.status_code == 200

    def is_in_place(self) -> bool:
        """By its own REST: the leader, or a replica that streams."""
        body = self.says()
        streams = "streaming" in (body.get("replication_state"), body.get("state"))
        return (body.get("role") == "replica" and streams) or self.is_leader()

    def standing(self) -> Standing | None:
        """By SQL; None when the server does not answer."""
        return standing_of(self.dsn, self.password)
