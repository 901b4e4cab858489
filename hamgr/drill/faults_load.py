"""Busy machines: every core has several programs to run, the disk is written to and flushed without end.

Starved are members and their servers. What would be on other machines is not: the client runs at real-time priority by
itself, etcd and the drill compete with the spinners as equals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hamgr.drill.fault import MACHINE, NETNS_ONLY, ON_THIS_MACHINE, Fault, Undo, Victims

_SPINNERS_PER_CORE = 3
_HIGHEST = -20
_LONGEST_STARVING_S = 120
"""The spinners end by themselves, should the drill be starved too."""
_LONGEST_SPIN_S = 86_400

_WRITERS = 2

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

_WRITE = """
import os, sys
block = os.urandom(1 << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.seek(0)
        for number in range(256):
            file.write(block)
            if number % 16 == 0:
                os.fsync(file.fileno())
"""


def _cpu_busy(victims: Victims) -> Undo:
    """Members compete with others as equals."""
    return _spin(victims, 0, _LONGEST_SPIN_S)


def _cpu_starved(victims: Victims) -> Undo:
    """Members get next to nothing."""
    elsewhere = [member.process.pid for member in victims.cluster.store.members if member.process is not None]
    before = _set_priority([os.getpid(), *elsewhere], _HIGHEST)
    end = _spin(victims, _HIGHEST, _LONGEST_STARVING_S)

    def undo() -> None:
        end()
        for pid, priority in before.items():
            _set_priority([pid], priority)

    return undo


def _spin(victims: Victims, priority: int, longest_s: int) -> Undo:
    count = (os.cpu_count() or 1) * _SPINNERS_PER_CORE
    return _keep_busy(victims, [[_SPIN, str(priority), str(longest_s)]] * count)


def _disk_busy(victims: Victims) -> Undo:
    """Two programs overwrite a file of 256 MiB each where all members have their data, and flush it every 16 MiB."""
    paths = [victims.cluster.logs / f"ballast-{number}" for number in range(_WRITERS)]
    end = _keep_busy(victims, [[_WRITE, str(path)] for path in paths])

    def undo() -> None:
        end()
        for path in paths:
            path.unlink(missing_ok=True)

    return undo


def _keep_busy(victims: Victims, programs: Sequence[Sequence[str]]) -> Undo:
    """Run Python programs, each with its arguments, until undone."""
    host, log = victims.cluster.client_host, victims.cluster.logs / "load.log"
    running = [host.spawn([sys.executable, "-S", "-c", *program], log, as_account=False) for program in programs]

    def end() -> None:
        for process in running:
            process.send(signal.SIGKILL)

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


LOAD_FAULTS = (
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
        "disk-busy",
        "the disk busy with writes and flushes",
        _disk_busy,
        False,
        MACHINE,
        places=ON_THIS_MACHINE,
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
        places=NETNS_ONLY,
        weight=1,
        is_survivable=False,
        most_changes=2,
        strikes_again=False,
    ),
)
