"""What a benchmark ran on: versions of everything measured, and the machine's size."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from hamgr.bench.managers.auto_failover import auto_failover_version
from hamgr.bench.managers.patroni import patroni_version
from hamgr.bench.variants import AUTO_FAILOVER, PATRONI
from hamgr.drill.accounts import Account
from hamgr.drill.errors import DrillError
from hamgr.drill.programs import postgres_bin_dir
from hamgr.version import VERSION

_MEMORY = re.compile(r"MemTotal:\s+(\d+) kB")


def environment(products: Collection[str], patroni: Path, account: Account | None) -> dict[str, str]:
    """Label -> version or size. Raises DrillError where a product of the benchmark is not installed."""
    found = {"hamgr": f"{VERSION}{_commit()}"}
    if PATRONI in products:
        found["Patroni"] = patroni_version(patroni, account)
    if AUTO_FAILOVER in products:
        found["pg_auto_failover"] = auto_failover_version()
    found["PostgreSQL"] = _first_line(str(postgres_bin_dir() / "postgres"), "--version").partition(") ")[2]
    found["etcd"] = _first_line(_program("etcd"), "--version").rpartition(" ")[2]
    found["Python"] = platform.python_version()
    found["Linux"] = platform.release()
    found["cores"] = str(len(os.sched_getaffinity(0)))
    memory = _MEMORY.search(Path("/proc/meminfo").read_text())
    found["memory"] = f"{int(memory.group(1)) / (1 << 20):.0f} GiB" if memory else "unknown"
    return found


def _commit() -> str:
    """Of the source tree that this runs from, with a word where it is not as committed; empty without one."""
    root = str(Path(__file__).resolve().parents[2])
    git = ("git", "-C", root, "-c", f"safe.directory={root}")
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "hamgr"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({head.stdout.strip()}{', changed' if changed.stdout.strip() else ''})"


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        raise DrillError(f"{name} is not installed")
    return found


def _first_line(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.partition("\n")[0]
    except (OSError, subprocess.CalledProcessError) as error:
        raise DrillError(f"{' '.join(argv)}: {error}") from error
