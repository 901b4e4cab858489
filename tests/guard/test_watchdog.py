"""The watchdog device, by a FIFO in its place: what the guard writes is a sign of life, V switches it off."""

import os
import signal
from pathlib import Path

import pytest

from hamgr.guard.layout import WATCHDOG_ACTIVE, WATCHDOG_FAILED, WATCHDOG_OFF, SharedPage, boottime_ns
from hamgr.guard.watchdog import Watchdog
from tests.guard.bench import SECOND, Bench, is_alive, living, wait_until

TIMEOUT_S = 2


class Device:
    """The driver's end of a FIFO."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def heard(self) -> bytes:
        """All that was written since the last time; empty also when nobody has it open."""
        try:
            return os.read(self._fd, 65536)
        except BlockingIOError:
            return b""

    def go(self) -> None:
        """The driver is gone."""
        os.close(self._fd)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "watchdog")


@pytest.fixture
def page(tmp_path: Path) -> SharedPage:
    return SharedPage.open(str(tmp_path))


def minded(page: SharedPage, device: Device, *, left_s: float) -> Watchdog:
    """A watchdog that has had one turn under a deadline so far off."""
    watchdog = Watchdog(page, (TIMEOUT_S, device.path))
    now = boottime_ns()
    page.deadline_ns = now + int(left_s * SECOND)
    watchdog.mind(now, True)
    return watchdog


def test_device_is_not_touched_while_nothing_is_bound(page: SharedPage, device: Device) -> None:
    watchdog = Watchdog(page, (TIMEOUT_S, device.path))
    watchdog.mind(boottime_ns(), False)
    assert device.heard() == b""
    assert page.watchdog == WATCHDOG_OFF


def test_sign_of_life_never_lasts_beyond_the_deadline(page: SharedPage, device: Device) -> None:
    """The stand-in cannot be given a shorter timeout, so that there is none once less than its timeout is left."""
    watchdog = minded(page, device, left_s=TIMEOUT_S + 0.5)
    assert device.heard() == b"\0"
    assert page.watchdog == WATCHDOG_ACTIVE
    watchdog.mind(page.deadline_ns - TIMEOUT_S * SECOND, True)
    assert device.heard() == b"\0"
    watchdog.mind(page.deadline_ns - TIMEOUT_S * SECOND + 1, True)
    watchdog.mind(page.deadline_ns + SECOND, True)
    assert device.heard() == b""


def test_timeout_is_shortened_to_what_is_left(
    page: SharedPage, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def ioctl(_fd: int, request: int, value: bytearray) -> int:
        assert request == 0xC0045706
        asked.append(int.from_bytes(value, "little"))
        return 0

    monkeypatch.setattr("hamgr.guard.watchdog.fcntl.ioctl", ioctl)
    watchdog = minded(page, device, left_s=10)
    watchdog.mind(page.deadline_ns - 5 * SECOND, True)
    watchdog.mind(page.deadline_ns - SECOND - 1, True)
    assert device.heard() == b"\0\0\0"
    watchdog.mind(page.deadline_ns - SECOND + 1, True)
    assert device.heard() == b""
    assert asked == [TIMEOUT_S, 1]


def test_driver_that_grants_more_than_is_left_gets_no_sign(
    page: SharedPage, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grant_a_minute(_fd: int, _request: int, value: bytearray) -> int:
        value[:] = (60).to_bytes(4, "little")
        return 0

    monkeypatch.setattr("hamgr.guard.watchdog.fcntl.ioctl", grant_a_minute)
    minded(page, device, left_s=10)
    assert device.heard() == b""
    assert page.watchdog != WATCHDOG_ACTIVE


def test_device_that_is_missing_is_said_once_and_found_later(
    page: SharedPage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    watchdog = Watchdog(page, (TIMEOUT_S, str(tmp_path / "later")))
    now = boottime_ns()
    for turn in range(3):
        watchdog.mind(now + turn * 2 * SECOND, True)
    assert page.watchdog == WATCHDOG_FAILED
    assert capfd.readouterr().err.count("cannot be used, going on without: No such file") == 1
    later = Device(tmp_path / "later")
    watchdog.mind(now + 10 * SECOND, True)
    assert later.heard() == b"\0"
    assert page.watchdog == WATCHDOG_ACTIVE


def test_device_whose_driver_is_gone_or_deaf_blocks_nobody(page: SharedPage, device: Device) -> None:
    watchdog = minded(page, device, left_s=1000)
    for _ in range(70_000):
        watchdog.mind(boottime_ns(), True)
    assert len(device.heard()) < 70_000, "it was full, and nobody waited"
    device.go()
    watchdog.mind(boottime_ns(), True)
    assert page.watchdog == WATCHDOG_FAILED


def bound_server(bench: Bench, device: Device, *, in_s: float) -> list[int]:
    bench.run("beat", watchdog=(TIMEOUT_S, device.path))
    tree = bench.start_server()
    bench.arm(tree[0], in_s=in_s)
    return tree


def test_device_is_active_before_the_agent_is_answered(bench: Bench, device: Device) -> None:
    bound_server(bench, device, in_s=1000)
    assert bench.page.watchdog == WATCHDOG_ACTIVE
    assert device.heard().startswith(b"\0")
    wait_until(device.heard, "it is kept alive")


def test_device_is_switched_off_when_the_agent_disarms(bench: Bench, device: Device) -> None:
    bound_server(bench, device, in_s=1000)
    bench.page.disarm()
    bench.ask("ping")
    assert device.heard().endswith(b"V")
    assert bench.page.watchdog == WATCHDOG_OFF


def test_device_is_switched_off_after_a_fence_and_not_before(bench: Bench, device: Device) -> None:
    tree = bound_server(bench, device, in_s=TIMEOUT_S + 1.5)
    wait_until(lambda: b"V" in device.heard(), "it is switched off")
    assert living(tree) == []
    assert bench.page.fenced_arming == bench.page.arming


def test_guard_that_dies_leaves_the_device_running_and_the_next_one_takes_it_over(bench: Bench, device: Device) -> None:
    bound_server(bench, device, in_s=1000)
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    assert b"V" not in device.heard()
    bench.run("beat", watchdog=(TIMEOUT_S, device.path))
    wait_until(device.heard, "the next one keeps it alive")


def test_device_of_a_dead_guard_is_switched_off_when_nothing_is_bound_any_more(bench: Bench, device: Device) -> None:
    bound_server(bench, device, in_s=1000)
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    device.heard()
    bench.page.disarm()
    bench.run("beat", watchdog=(TIMEOUT_S, device.path))
    bench.ask("ping")
    assert device.heard() == b"V"


def test_device_is_switched_off_at_the_guards_end_once_its_server_is_stopped(bench: Bench, device: Device) -> None:
    """The agent does not take part in the stop, so that nobody disarms."""
    bench.run("deaf", watchdog=(TIMEOUT_S, device.path), stop_timeout_s=1)
    tree = bench.start_server("trap exit INT; sleep 1000 & wait", size=2)
    bench.arm(tree[0], in_s=1000)
    os.kill(bench.page.guard_pid, signal.SIGTERM)
    assert bench.guard is not None
    assert bench.guard.wait(20) == 1
    assert bench.page.armed
    assert device.heard().endswith(b"V")


def test_stand_in_that_makes_room_leaves_the_device_running_for_the_next_guard(bench: Bench, device: Device) -> None:
    bound_server(bench, device, in_s=1000)
    bench.run_stand_in("beat", watchdog=(TIMEOUT_S, device.path))
    assert bench.ask("retire") == ["retiring"]
    wait_until(lambda: not is_alive(bench.page.guard_pid), "it is gone")
    assert b"V" not in device.heard()
    assert bench.page.watchdog == WATCHDOG_ACTIVE
    bench.run("beat", watchdog=(TIMEOUT_S, device.path))
    wait_until(device.heard, "the next one keeps it alive")
