"""The shared page."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hamgr.guard.layout import MAGIC, PAGE_BYTES, PAGE_NAME, SharedPage, read_boot_id


def test_new_page_is_private_empty_and_of_this_boot(tmp_path: Path) -> None:
    page = SharedPage.open(str(tmp_path))
    assert stat.S_IMODE((tmp_path / PAGE_NAME).stat().st_mode) == 0o600
    assert page.magic == MAGIC
    assert (page.boot_id_high, page.boot_id_low) == read_boot_id()
    assert not page.armed


def test_page_of_this_boot_is_kept(tmp_path: Path) -> None:
    SharedPage.open(str(tmp_path)).term = 7
    assert SharedPage.open(str(tmp_path)).term == 7


def test_page_of_another_boot_is_wiped(tmp_path: Path) -> None:
    page = SharedPage.open(str(tmp_path))
    page.arm(1, 2, 3)
    page.boot_id_low ^= 1
    again = SharedPage.open(str(tmp_path))
    assert not again.armed
    assert (again.deadline_ns, again.postmaster_pid) == (0, 0)
    assert (again.boot_id_high, again.boot_id_low) == read_boot_id()


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * PAGE_BYTES, b"\0" * (2 * PAGE_BYTES)])
def test_page_of_bad_size_or_magic_is_made_again_in_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / PAGE_NAME
    path.write_bytes(content)
    inode = path.stat().st_ino
    page = SharedPage.open(str(tmp_path))
    assert page.magic == MAGIC
    assert page.fenced_at_ns == 0
    assert (path.stat().st_ino, path.stat().st_size) == (inode, PAGE_BYTES)


def test_symlink_is_not_followed(tmp_path: Path) -> None:
    os.symlink("/dev/null", tmp_path / PAGE_NAME)
    with pytest.raises(OSError, match="symbolic link"):
        SharedPage.open(str(tmp_path))


def test_two_openers_see_one_page(tmp_path: Path) -> None:
    one, other = SharedPage.open(str(tmp_path)), SharedPage.open(str(tmp_path))
    one.deadline_ns = 2**63 + 5
    assert other.deadline_ns == 2**63 + 5


def test_disarm_ends_an_arming_and_arm_begins_a_new_one(tmp_path: Path) -> None:
    page = SharedPage.open(str(tmp_path))
    page.arm(1, 0, 0)
    first = page.arming
    page.arm(2, 0, 0)
    assert (page.armed, page.arming, page.deadline_ns) == (True, first, 2)
    page.disarm()
    page.disarm()
    assert not page.armed
    page.arm(3, 0, 0)
    assert page.armed
    assert page.arming > first


def test_arming_that_begins_while_a_fence_ends_is_not_wiped_out(tmp_path: Path) -> None:
    page = SharedPage.open(str(tmp_path))
    page.arm(1, 0, 0)
    fenced = page.arming
    page.disarm()
    page.arm(2, 0, 0)
    page.fenced_arming = fenced
    assert page.armed


def test_fenced_page_can_be_armed_again(tmp_path: Path) -> None:
    page = SharedPage.open(str(tmp_path))
    page.arm(1, 0, 0)
    page.fenced_arming = page.arming
    assert not page.armed
    page.arm(2, 0, 0)
    assert page.armed


def test_many_that_open_a_new_page_at_once_do_not_wipe_each_other(tmp_path: Path) -> None:
    program = (
        "import sys; from hamgr.guard.layout import SharedPage; sys.stdin.read();"
        "page = SharedPage.open(sys.argv[1]); page.words[100 + int(sys.argv[2])] = 1"
    )
    openers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(number)], stdin=subprocess.PIPE)
        for number in range(6)
    ]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.close()
    assert [opener.wait() for opener in openers] == [0] * 6
    assert SharedPage.open(str(tmp_path)).words[100:106].tolist() == [1] * 6


def test_naming_the_postmaster_changes_neither_deadline_nor_arming(tmp_path: Path) -> None:
    page = SharedPage.open(str(tmp_path))
    page.arm(5, 0, 0)
    page.fenced_arming = page.arming
    page.name_postmaster(7, 8)
    assert (page.postmaster_pid, page.postmaster_start_ticks, page.deadline_ns) == (7, 8, 5)
    assert not page.armed
