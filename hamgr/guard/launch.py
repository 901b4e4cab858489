"""The command line by which the launcher becomes the guard."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


def guard_argv(
    runtime_dir: str,
    data_dir: str,
    agent_argv: Sequence[str],
    *,
    agent_timeout_s: float,
    stop_timeout_s: float,
    kill_budget_s: float,
    watchdog: tuple[int, str] | None = None,
    is_stand_in: bool = False,
) -> list[str]:
    """What to hand to `os.execv(argv[0], argv)`; `runtime_dir` must exist, `agent_argv[0]` is an absolute path.

    `watchdog`: longest timeout in seconds and device. With `is_stand_in` the program returns at once and leaves the
    guard behind in a session of its own, or nothing where another guard holds the runtime directory.

    The data directory's symlinks are resolved here and not by the guard, which never touches that disk. The program
    is run by its file: `-m` or a directory would load a megabyte of import machinery, and `ps` shows `hamgr/guard`.
    """
    return [
        sys.executable,
        "-I",
        "-S",
        _PROGRAM,
        f"--runtime-dir={os.path.abspath(runtime_dir)}",
        f"--data-dir={os.path.realpath(data_dir)}",
        f"--agent-timeout={agent_timeout_s:g}",
        f"--stop-timeout={stop_timeout_s:g}",
        f"--kill-budget={kill_budget_s:g}",
        *([f"--watchdog={watchdog[0]}:{watchdog[1]}"] if watchdog else []),
        *(["--stand-in"] if is_stand_in else []),
        "--",
        *agent_argv,
    ]
