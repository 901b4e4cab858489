"""Where the programs are that a drill runs but does not bring along."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hamgr.drill.clocks import library as clock_library
from hamgr.drill.errors import DrillError
from hamgr.drill.plan import Place


def postgres_bin_dir() -> Path:
    """Directory of the newest installed PostgreSQL's programs.

    Debian and Ubuntu keep every major version below /usr/lib/postgresql; elsewhere `initdb` is on the PATH.
    Raises DrillError where there is none.
    """
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if installed:
        return max(installed, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    found = shutil.which("initdb")
    if found is None:
        raise DrillError("PostgreSQL is not installed (Debian and Ubuntu: apt install postgresql)")
    return Path(found).resolve().parent


_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


_IN_CONTAINERS = {"docker.io": ["docker"], "iproute2": ["ip"], "nftables": ["nft"], "util-linux": ["nsenter"]}
"""Servers and etcd are in the images."""


def missing_programs(place: Place = Place.LOOPBACK, *, disks: bool = False, clocks: bool = False) -> list[str]:
    """Debian package names of what a drill of that kind needs and this machine does not have."""
    missing = []
    if place is not Place.COMPOSE:
        try:
            postgres_bin_dir()
        except DrillError:
            missing.append("postgresql")
    wanted = dict(_IN_CONTAINERS) if place is Place.COMPOSE else {"etcd-server": ["etcd"]}
    if place is Place.NETNS:
        wanted |= {"iproute2": ["ip"], "nftables": ["nft"]}
    if disks:
        wanted |= {"e2fsprogs": ["mkfs.ext4", "e2fsck"], "mount": ["mount"], "util-linux": ["fsfreeze", "findmnt"]}
    for package, programs in wanted.items():
        if any(shutil.which(program, path=_SYSTEM_PATH) is None for program in programs):
            missing.append(package)
    if clocks and clock_library() is None:
        missing.append("faketime")
    return missing
