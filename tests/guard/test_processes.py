"""Processes are named by pid and start time, and are signalled only as such."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from hamgr.guard import processes
from tests.guard.bench import start_ticks, wait_until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def test_program_name_with_blanks_and_parentheses_is_read_past() -> None:
    line = b"7 (a) S (b) c) R 3 7 7 0 -1 4 " + b" ".join(b"%d" % field for field in range(10, 30))
    process = processes.Process(7, line)
    assert (process.state, process.parent, process.group, process.flags, process.start_ticks) == (b"R", 3, 7, 4, 22)
    assert processes.is_gone(process)


def test_unreaped_child_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    identity = (sleeper.pid, start_ticks(sleeper.pid))
    assert processes.lives(identity)
    os.kill(sleeper.pid, signal.SIGKILL)
    wait_until(lambda: not processes.lives(identity), "it is gone before it is reaped")
    assert os.path.exists(f"/proc/{sleeper.pid}")


def test_another_start_time_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    stranger = (sleeper.pid, start_ticks(sleeper.pid) - 1)
    assert not processes.lives(stranger)
    assert processes.open_pidfd(stranger) is None
    assert not processes.send_signal(stranger, signal.SIGKILL)
    assert sleeper.poll() is None


def test_signal_is_sent_even_where_there_is_no_pidfd(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(f"no descriptor for {pid}")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert processes.send_signal((sleeper.pid, start_ticks(sleeper.pid)), signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM


def test_nobody_is_never_signalled() -> None:
    assert not processes.send_signal(processes.NOBODY, signal.SIGTERM)
    assert not processes.lives(processes.NOBODY)
