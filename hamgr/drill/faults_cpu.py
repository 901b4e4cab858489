"""Starved CPUs: every core is busy with something of the highest priority.

Members and their servers starve. What would be on other machines does not: the client runs at real-time priority by
itself, etcd and the drill compete with the spinners as equals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from hamgr.drill.fault import MACHINE, Fault, Undo, Victims

_SPINNERS_PER_CORE = 3
_HIGHEST = -20
_LONGEST_SPIN_S = 120
"""They end by themselves, should the drill be starved too."""

_SPIN = """
import os, sys, time
os.nice(-20)
try:
    open("/proc/self/autogroup", "w").write("-20")
except OSError:
    pass
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pass
"""


def _cpu_starved(victims: Victims) -> Undo:
    cluster = victims.cluster
    elsewhere = [member.process.pid for member in cluster.store.members if member.process is not None]
    before = _set_priority([os.getpid(), *elsewhere], _HIGHEST)
    argv = [sys.executable, "-S", "-c", _SPIN, str(_LONGEST_SPIN_S)]
    count = (os.cpu_count() or 1) * _SPINNERS_PER_CORE
    log = cluster.logs / "spinners.log"
    spinners = [cluster.client_host.spawn(argv, log, as_account=False) for _ in range(count)]

    def undo() -> None:
        for spinner in spinners:
            spinner.send(signal.SIGKILL)
        for pid, priority in before.items():
            _set_priority([pid], priority)

    return undo


# Where the kernel groups by session (autogroup in sched(7)), priorities count within a session only: both are set.
def _set_priority(pids: Iterable[int], priority: int) -> dict[int, int]:
    """Every thread of the processes has that priority, and so have their sessions. Returns what each process had."""
    before: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            before[pid] = os.getpriority(os.PRIO_PROCESS, pid)
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, int(thread), priority)
            Path(f"/proc/{pid}/autogroup").write_text(str(priority))
    return before


CPU_FAULTS = (
    Fault(
        "cpu-starved",
        "all cores busy at the highest priority",
        _cpu_starved,
        False,
        MACHINE,
        hold_ttls=3.0,
        needs_netns=True,
        weight=3,
    ),
)
