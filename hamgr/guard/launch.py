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
) -> list[str]:
    """What to hand to `os.execv(argv[0], argv)`; `runtime_dir` must exist, `agent_argv[0]` is an absolute path.

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
        "--",
        *agent_argv,
    ]
