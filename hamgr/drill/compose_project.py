"""docker-compose.yml as a project for one drill, with a name, network, ports and passwords of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import hamgr
from hamgr.drill.containers import docker, run
from hamgr.drill.errors import DrillError
from hamgr.drill.network import free_subnet

COMPOSE_FILE = "docker-compose.yml"
MEMBERS = ("db1", "db2", "db3")
STORES = ("etcd1", "etcd2", "etcd3")

_PREFIX = "hamgr-drill-"
_PROJECT_LABEL = "com.docker.compose.project"
_BUILD_TIMEOUT_S = 3600.0
_UP_TIMEOUT_S = 300.0

_TAG = os.environ.get("HAMGR_TAG") or "latest"
MEMBER_IMAGE = f"hamgr/member:{_TAG}"
STORE_IMAGE = f"hamgr/etcd:{_TAG}"

PORTS = ("WRITE", "READ", "HAPROXY", "POOL", "DB1", "DB2", "DB3", "PROMETHEUS")
PASSWORDS = ("SUPERUSER", "REPLICATION", "REWIND", "APP", "POOL_ADMIN", "RESTAPI")
REST_USER = "admin"


def compose_file() -> Path:
    """hamgr's docker-compose.yml: of the checkout that this is run from, or of the working directory.

    Raises DrillError where neither has one.
    """
    source = hamgr.__path__[0]
    for directory in (Path(source).parent, Path.cwd()):
        if (directory / COMPOSE_FILE).is_file() and (directory / "config" / "docker").is_dir():
            return directory / COMPOSE_FILE
    raise DrillError(f"no {COMPOSE_FILE} of hamgr here: change to the directory of its sources")


def need_engine() -> None:
    """True on return: a Docker engine answers, Compose is version 2 or later, and this process may signal containers.

    Raises DrillError, which says what to do.
    """
    if os.geteuid() != 0:
        raise DrillError("drills in containers signal their processes: run this as root")
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout_s=20.0)
    except DrillError as error:
        raise DrillError(f"no Docker engine answers; scripts/drill installs and starts one ({error})") from error
    try:
        docker("compose", "version", "--short", timeout_s=20.0)
    except DrillError as error:
        raise DrillError("docker has no `compose`, version 2; scripts/drill installs it") from error


def build_images() -> None:
    """True on return: the images are those of the sources. Raises DrillError."""
    need_engine()
    run(["docker", "compose", "--file", str(compose_file()), "build", "--quiet"], _BUILD_TIMEOUT_S)


class ComposeProject:
    """One run of docker-compose.yml, of images that are built. Nothing of it is there until `up`."""

    def __init__(self, member_file: Path) -> None:
        need_engine()
        remove_left_behind()
        self.file = compose_file()
        self.name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        self.subnet = free_subnet()
        self._secrets = {f"HAMGR_{name}_PASSWORD": secrets.token_hex(16) for name in PASSWORDS}
        self._environment: dict[str, str] = {
            "HAMGR_NET": self.subnet,
            "HAMGR_BIND": "127.0.0.1",
            "HAMGR_MEMBER_FILE": str(member_file),
            "HAMGR_RESTAPI_USERNAME": REST_USER,
            "HAMGR_APP_USER": "app",
            "HAMGR_APP_DATABASE": "app",
            # Any that is free.
            **{f"HAMGR_{name}_PORT": "0" for name in PORTS},
            **self._secrets,
        }

    def password(self, name: str) -> str:
        """Of one of PASSWORDS."""
        return self._secrets[f"HAMGR_{name}_PASSWORD"]

    def container_name(self, service: str) -> str:
        return f"{self.name}-{service}-1"

    @property
    def network_name(self) -> str:
        return f"{self.name}_cluster"

    def addresses(self) -> Mapping[str, str]:
        """Service -> address in the project's network, of running containers."""
        template = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        ids = self._compose("ps", "--quiet", timeout_s=60.0).split()
        lines = docker("inspect", "--format", template, *ids).splitlines()
        found = (line.removeprefix("/").split(" ", 1) for line in lines)
        return {name.removeprefix(f"{self.name}-").removesuffix("-1"): address for name, address in found}

    def up(self) -> None:
        """True on return: all containers run. Raises DrillError."""
        self._environment |= limits_that_can_be_raised()
        self._compose("up", "--detach", "--no-build", timeout_s=_UP_TIMEOUT_S)

    def logs(self) -> str:
        """Everything that all containers have logged."""
        return self._compose("logs", "--no-color", "--timestamps", timeout_s=120.0)

    def down(self) -> None:
        """Nothing of it is left, but for images."""
        self._compose("down", "--volumes", "--remove-orphans", "--timeout", "0", timeout_s=_UP_TIMEOUT_S)

    def _compose(self, *arguments: str, timeout_s: float) -> str:
        plain = ("--ansi", "never", "--progress", "quiet")
        argv = ["docker", "compose", "--project-name", self.name, "--file", str(self.file), *plain, *arguments]
        return run(argv, timeout_s, {**os.environ, **self._environment})


def limits_that_can_be_raised() -> dict[str, str]:
    """Settings without raised limits where the engine may not raise them; none where it may.

    An engine that runs in a container itself may lack the right to. The guard then runs as everybody else.
    """
    try:
        limits = ("--ulimit", "rtprio=1", "--ulimit", "memlock=-1")
        docker("run", "--rm", "--pull", "never", *limits, "--entrypoint", "true", MEMBER_IMAGE)
    except DrillError as error:
        if "rlimit" not in str(error):
            raise
        return {"HAMGR_RTPRIO": "0", "HAMGR_MEMLOCK": "0"}
    return {}


def remove_left_behind() -> None:
    """Projects of drills that were killed are taken away; those of drills that run are left alone."""
    labels = docker("ps", "--all", "--format", f'{{{{.Label "{_PROJECT_LABEL}"}}}}').split()
    for project in sorted(set(labels)):
        if project.startswith(_PREFIX) and not Path(f"/proc/{_pid_of(project)}").exists():
            _remove(project)


def _pid_of(project: str) -> str:
    return project.removeprefix(_PREFIX).partition("-")[0]


def _remove(project: str) -> None:
    label = ("--filter", f"label={_PROJECT_LABEL}={project}")
    for listing, removal in (
        (("ps", "--all", "--quiet"), ("rm", "--force", "--volumes")),
        (("volume", "ls", "--quiet"), ("volume", "rm")),
        (("network", "ls", "--quiet"), ("network", "rm")),
    ):
        found = docker(*listing, *label).split()
        if found:
            # Somebody else may remove them at the same time.
            with contextlib.suppress(DrillError):
                docker(*removal, *found)
