"""docker-compose.yml started as a user starts it, on ports and a network that nobody else uses."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from testcontainers.compose import DockerCompose

from hamgr.drill.compose_project import PORTS, limits_that_can_be_raised
from hamgr.drill.containers import docker
from hamgr.drill.errors import DrillError
from hamgr.drill.network import free_port, free_subnet

ROOT = Path(__file__).resolve().parents[2]
_BUILD_TIMEOUT_S = 180.0

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")


@dataclass(frozen=True)
class Running:
    """The project while it runs. `ports`: published ones, by the middle of their variable's name."""

    compose: DockerCompose
    project: str
    ports: dict[str, int]
    environment: dict[str, str]

    def connect(self, port: str, user: str = "app", password: str = "app-password", database: str = "app") -> Any:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.ports[port],
            user=user,
            password=password,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def ask(self, port: str, query: str, **whom: str) -> list[tuple[Any, ...]]:
        with self.connect(port, **whom) as connection:
            return list(connection.execute(query).fetchall())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return compose(self.environment, *arguments)

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"


def compose(environment: dict[str, str], *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """`docker compose ARGUMENTS` with the settings given, to its end, whatever it ends with."""
    return subprocess.run(
        ["docker", "compose", "--ansi", "never", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def base_image() -> str:
    """As docker-compose.yml has it, unless the environment says otherwise."""
    found = re.search(r"\$\{HAMGR_BASE:-([^}]*)\}", (ROOT / "docker-compose.yml").read_text())
    assert found is not None
    return os.environ.get("HAMGR_BASE") or found.group(1)


def why_not() -> str:
    """Why there can be no containers here; empty where there can."""
    for what, command in (
        ("no Docker engine answers", ("version", "--format", "{{.Server.Version}}")),
        ("docker has no `compose`, version 2", ("compose", "version", "--short")),
        (f"{base_image()} is not here: scripts/base-images makes it", ("image", "inspect", base_image())),
    ):
        try:
            docker(*command, timeout_s=20.0)
        except DrillError:
            return what
    return ""


@pytest.fixture(scope="session")
def images() -> None:
    """Images of the sources as they are; skipped with the reason where they cannot be made in acceptable time."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    try:
        built = compose({}, "build", "--quiet", timeout_s=_BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"images are not built within {_BUILD_TIMEOUT_S:g} s: docker compose build")
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="session")
def settings(images: None) -> dict[str, str]:
    """Of a project beside all others, with limits that this engine may set."""
    taken: set[int] = set()
    made = {f"HAMGR_{name}_PORT": str(free_port("127.0.0.1", taken)) for name in PORTS}
    made |= {"COMPOSE_PROJECT_NAME": f"hamgr-test-{os.getpid()}", "HAMGR_NET": free_subnet()}
    return made | limits_that_can_be_raised()


@pytest.fixture(scope="module")
def running(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole project, every service healthy."""
    env_file = tmp_path_factory.mktemp("compose") / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    with DockerCompose(ROOT, env_file=str(env_file), wait=True) as started:
        ports = {name: int(settings[f"HAMGR_{name}_PORT"]) for name in PORTS}
        yield Running(started, settings["COMPOSE_PROJECT_NAME"], ports, settings)
