"""Under which conditions drills were run: what a reader must know before comparing two reports."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hamgr.drill.compose_project import MEMBER_IMAGE, STORE_IMAGE
from hamgr.drill.plan import Place, Plan, Via
from hamgr.drill.programs import postgres_bin_dir
from hamgr.version import VERSION

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Versions are as the programs name them, `unknown` where they do not say."""

    hamgr: str
    place: str
    """loopback, netns or another place where hosts are."""
    ttl_s: float
    synchronous_mode: str
    members: int
    store_members: int
    postgresql: str
    etcd: str
    began_at: str
    """ISO 8601, UTC."""
    command: str
    seed: int | None = None
    """Of the random choice of faults; None: they were named."""
    machine: str = ""


def conditions_of(plan: Plan, command: str, seed: int | None) -> Conditions:
    """The conditions of drills by that plan on this machine, which begin now. Images are built."""
    postgresql, etcd = _programs(plan.place)
    return Conditions(
        hamgr=VERSION,
        place=plan.place.value + ("" if plan.via is Via.DIRECT else f", clients through {plan.via.value}"),
        ttl_s=plan.ttl_s,
        synchronous_mode=plan.synchronous_mode,
        members=plan.members,
        store_members=plan.store_members,
        postgresql=version_of(postgresql),
        etcd=version_of(etcd),
        began_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        seed=seed,
        machine=this_machine(),
    )


def _programs(place: Place) -> tuple[list[str], list[str]]:
    """Command lines that tell the version of PostgreSQL and of etcd."""
    if place is not Place.COMPOSE:
        return [str(postgres_bin_dir() / "postgres"), "--version"], ["etcd", "--version"]
    run = ["docker", "run", "--rm", "--entrypoint"]
    return [*run, "psql", MEMBER_IMAGE, "--version"], [*run, "etcd", STORE_IMAGE, "--version"]


def version_of(argv: Sequence[str]) -> str:
    """The first version number that the program prints: 15.14, 3.4.23; `unknown` if it prints none."""
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    found = re.search(r"\d+(\.\d+)+\S*|\d+(beta|rc|devel)\S*", ran.stdout)
    return found[0] if found else UNKNOWN


def this_machine() -> str:
    """Processors and kernel: what a figure depends on most."""
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}, {platform.system()} {platform.release()}"


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1].strip() if named else platform.machine()
