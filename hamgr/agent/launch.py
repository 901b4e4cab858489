"""`hamgr agent FILE`: check the configuration, then become the guard, which starts the agent."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hamgr.agent.guard_replacement import guard_command
from hamgr.agent.journal import complain
from hamgr.guard.layout import EXIT_REFUSED_CONFIGURATION
from hamgr.settings import SettingsError, load


@click.command("agent")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
def command(file: Path) -> None:
    """Look after this host's server: the service that runs on every database host."""
    try:
        loaded = load(file)
    except SettingsError as error:
        for problem in error.problems:
            complain(str(problem))
        sys.exit(EXIT_REFUSED_CONFIGURATION)
    if os.geteuid() == 0:
        # Before anything is made: a runtime directory of root's would keep the right user's agent from starting.
        complain("PostgreSQL does not run as root: start `hamgr agent` as the server's user")
        sys.exit(EXIT_REFUSED_CONFIGURATION)
    settings = loaded.settings
    try:
        os.makedirs(settings.runtime_dir, mode=0o700, exist_ok=True)
    except OSError as error:
        complain(
            f"cannot make {settings.runtime_dir}: {error.strerror}. Make it for this user "
            "(systemd: RuntimeDirectory=hamgr), or set guard.runtime_dir to a directory on tmpfs"
        )
        sys.exit(EXIT_REFUSED_CONFIGURATION)
    argv = guard_command(file, loaded)
    os.execv(argv[0], argv)
