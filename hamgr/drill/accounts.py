"""Who runs servers and agents, and with which interpreter: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from hamgr.drill.errors import DrillError


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The user that servers run as, if this process is root; None: as whoever runs this.

    The existing user `postgres`, else `nobody`. Raises DrillError where neither exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise DrillError("run as root, this needs a user `postgres` or `nobody` for the servers")


def own(path: Path, account: Account | None) -> Path:
    """Make directory `path` (mode 0700 for data directories is theirs to set) and give it to the account."""
    path.mkdir(parents=True, exist_ok=True)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    return path


def interpreter_for(account: Account | None, directory: Path) -> Path:
    """A Python that the account can run and that imports hamgr.

    This process's own where the account can reach it. A virtual environment of root may point into /root:
    then an environment made in `directory` from the system's Python of the same version, which sees the same
    packages. Raises DrillError when neither works.
    """
    own_python = Path(sys.executable)
    if account is None or _imports_hamgr(own_python, account):
        return own_python
    environment = directory / "python"
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if system.exists():
        _make_environment(system, environment)
        if _imports_hamgr(environment / "bin" / "python", account):
            return environment / "bin" / "python"
    raise DrillError(
        f"user {account.name} cannot run {own_python} with hamgr: install hamgr into a virtual environment "
        "that every user can read (not below /root)"
    )


def _make_environment(system: Path, environment: Path) -> None:
    """A bare environment whose module path is this process's, without the standard library."""
    subprocess.run([str(system), "-m", "venv", "--without-pip", str(environment)], check=True, capture_output=True)
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    paths = [
        path for path in sys.path if os.path.isdir(path) and path not in standard and not path.endswith("/lib-dynload")
    ]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (environment / "lib" / version / "site-packages" / "drill.pth").write_text("\n".join(paths) + "\n")


def _imports_hamgr(python: Path, account: Account) -> bool:
    try:
        tried = subprocess.run(
            [str(python), "-I", "-c", "import hamgr.drill, psycopg, yaml"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return tried.returncode == 0
