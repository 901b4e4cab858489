"""Where the programs are that a drill runs but does not bring along."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from hamgr.drill.errors import DrillError


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


def missing_programs() -> list[str]:
    """Debian package names of what a drill needs and this machine does not have."""
    missing = []
    try:
        postgres_bin_dir()
    except DrillError:
        missing.append("postgresql")
    if shutil.which("etcd", path="/usr/local/bin:/usr/bin:/bin") is None:
        missing.append("etcd-server")
    return missing
