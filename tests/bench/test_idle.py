"""CPU time is counted for the processes that used it, on demand with that of their ended children."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from hamgr.bench.idle import cpu_s, memory_mib

_SPIN = "import time\nwhile time.process_time() < 0.3: pass\n"


def spinner(program: str) -> subprocess.Popen[str]:
    """A process that has done its work and waits."""
    done = "\nprint('done', flush=True)\nimport sys; sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program + done], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    return process


def test_a_process_that_worked_has_cpu_time() -> None:
    with spinner(_SPIN) as busy, spinner("") as idle:
        assert cpu_s([busy.pid]) >= 0.28
        assert cpu_s([busy.pid, idle.pid]) > cpu_s([idle.pid]) + 0.2
        for process in (busy, idle):
            process.communicate()


def test_ended_children_count_on_demand() -> None:
    with spinner(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_SPIN!r}])\n") as parent:
        assert cpu_s([parent.pid], ended_children=True) >= cpu_s([parent.pid]) + 0.28
        parent.communicate()


def test_a_process_that_is_gone_counts_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", _SPIN])
    ended.wait()
    assert cpu_s([ended.pid]) == 0


def test_time_does_not_run_back() -> None:
    before = cpu_s([os.getpid()])
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert cpu_s([os.getpid()]) >= before


def test_memory_is_summed_over_the_processes_that_are_there() -> None:
    with spinner("held = bytearray(50 << 20)") as big, spinner("") as small:
        for file, name in (("status", "VmRSS"), ("smaps_rollup", "Pss")):
            one = memory_mib([small.pid], file, name)
            assert one > 1
            assert memory_mib([big.pid, small.pid, 2**22 + 1], file, name) > one + 50
        for process in (big, small):
            process.communicate()
