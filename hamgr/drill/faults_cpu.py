"""Busy and starved CPUs: every core has several programs to run, of the members' priority or of the highest.

Starved are members and their servers. What would be on other machines is not: the client runs at real-time priority by
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
priority = int(sys.argv[1])
if priority:
    os.setpriority(os.PRIO_PROCESS, 0, priority)
    open("/proc/self/autogroup", "w").write(str(priority))
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    pass
"""


def _cpu_busy(victims: Victims) -> Undo:
    """Members compete with others as equals."""
    return _spin(victims, 0)


def _cpu_starved(victims: Victims) -> Undo:
    """Members get next to nothing."""
    elsewhere = [member.process.pid for member in victims.cluster.store.members if member.process is not None]
    before = _set_priority([os.getpid(), *elsewhere], _HIGHEST)
    end = _spin(victims, _HIGHEST)

    def undo() -> None:
        end()
        for pid, priority in before.items():
            _set_priority([pid], priority)

    return undo


def _spin(victims: Victims, priority: int) -> Undo:
    host, log = victims.cluster.client_host, victims.cluster.logs / "spinners.log"
    argv = [sys.executable, "-S", "-c", _SPIN, str(priority), str(_LONGEST_SPIN_S)]
    count = (os.cpu_count() or 1) * _SPINNERS_PER_CORE
    spinners = [host.spawn(argv, log, as_account=False) for _ in range(count)]

    def end() -> None:
        for spinner in spinners:
            spinner.send(signal.SIGKILL)

    return end


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
        "cpu-busy",
        "all cores busy with several programs each",
        _cpu_busy,
        False,
        MACHINE,
        hold_ttls=3.0,
        weight=3,
    ),
    Fault(
        "cpu-starved",
        "all cores busy at the highest priority",
        _cpu_starved,
        # All members starve alike: whether the leader keeps its lease, or any gets another, is luck. Safety is not.
        None,
        MACHINE,
        hold_ttls=3.0,
        needs_netns=True,
        weight=1,
        is_survivable=False,
        most_changes=2,
        strikes_again=False,
    ),
)
