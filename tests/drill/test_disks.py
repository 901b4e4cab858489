"""A drill's disks do what they are for, on real file systems, and none outlives the drill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.drill.disks import Disk, Keeper, make_disk
from hamgr.drill.freezing import state_of
from hamgr.drill.programs import missing_programs
from tests.drill.test_hosts import wait_until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
    pytest.mark.skipif(bool(missing_programs(disks=True)), reason="programs for disks are missing"),
]

SIZE_BYTES = 16 << 20
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


@pytest.fixture
def disk(room: Path) -> Iterator[Disk]:
    made = make_disk(room / "x.img", room / "x", SIZE_BYTES, None)
    keeper = Keeper([made])
    yield made
    keeper.thaw_all()
    keeper.close()
    assert not os.path.ismount(made.mount)


def test_write_to_a_frozen_disk_hangs_beyond_any_signal_until_it_is_thawed(disk: Disk) -> None:
    # A shell that runs already: a program that is only being loaded waits in state D for other disks, too.
    writer = subprocess.Popen(["sh", "-c", 'echo ready; read -r go; echo x >"$1"', "sh", disk.mount / "file"], **PIPES)
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == b"ready\n"
    disk.freeze()
    writer.stdin.write(b"go\n")
    writer.stdin.flush()
    wait_until(lambda: state_of(writer.pid) == "D")
    writer.send_signal(signal.SIGKILL)
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(0.3)
    assert not (disk.mount / "file").exists()
    disk.thaw()
    assert writer.wait(10) is not None


def test_reading_a_frozen_disk_goes_on(disk: Disk) -> None:
    (disk.mount / "file").write_text("x")
    disk.freeze()
    assert (disk.mount / "file").read_text() == "x"


def write_block(path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(b"x" * 4096)
        stream.flush()
        os.fsync(stream.fileno())


def test_full_disk_has_no_room_for_a_block_also_of_root_until_undone(disk: Disk) -> None:
    undo = disk.fill()
    with pytest.raises(OSError, match="No space left"):
        write_block(disk.mount / "file")
    undo()
    write_block(disk.mount / "file")


def test_broken_disk_refuses_files_that_were_open_already_and_keeps_what_it_held(disk: Disk) -> None:
    held = disk.mount / "file"
    with held.open("w") as stream:
        stream.write("before")
        stream.flush()
        os.fsync(stream.fileno())
        disk.break_read_only()
        with pytest.raises(OSError, match="Read-only"):
            os.write(stream.fileno(), b"after")
    disk.repair()
    assert held.read_text() == "before"
    held.write_text("again")


def test_fresh_disk_holds_nothing(disk: Disk) -> None:
    assert list(disk.mount.iterdir()) == []


_KILLED_DRILL = """
import os, signal, sys
from pathlib import Path
from hamgr.drill.disks import Keeper, make_disk
room = Path(sys.argv[1])
disk = make_disk(room / "k.img", room / "k", 16 << 20, None)
keeper = Keeper([disk])
disk.freeze()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_disks_of_a_killed_drill_are_thawed_and_gone(room: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED_DRILL, str(room)], check=False)
    assert killed.returncode == -signal.SIGKILL
    wait_until(lambda: not os.path.ismount(room / "k"))
    wait_until(lambda: devices_of(room / "k.img") == "")


def devices_of(image: Path) -> str:
    """The kernel lets go of a loop device a little after the file system on it."""
    return subprocess.run(["losetup", "-j", str(image)], capture_output=True, text=True, check=True).stdout
