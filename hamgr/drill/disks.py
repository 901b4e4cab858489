"""Small disks of a drill: ext4 in an image file on a loop device, so that one may be full, broken or stuck alone.

Whatever happens to the drill itself, its disks are thawed and taken away: a keeper, a process of its own, does it
as soon as the drill has gone. A file system that stayed frozen would hold unkillable processes for ever.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hamgr.drill.accounts import Account
from hamgr.drill.errors import DrillError

_KEEPER = """
cat >/dev/null
for mount in "$@"; do fsfreeze -u "$mount"; done
for mount in "$@"; do umount -l "$mount"; done
"""
"""Reads until end of file, which comes when the drill ends, however it ends. A loop device that `mount -o loop` made
goes with its mount."""

_FILLER = "filler"
_KEEPER_TIMEOUT_S = 30.0
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Disk:
    """One file system of its own. All methods need root and raise DrillError."""

    image: Path
    mount: Path

    def freeze(self) -> None:
        """From now on every write to it waits, in the kernel and unkillable, until `thaw`."""
        _run("fsfreeze", "-f", str(self.mount))

    def thaw(self) -> None:
        """Writes go on. One that is not frozen is left alone."""
        subprocess.run(["fsfreeze", "-u", str(self.mount)], capture_output=True, check=False)

    def fill(self) -> Callable[[], None]:
        """Not a block is free on return; what is returned frees them again."""
        filler = self.mount / _FILLER
        descriptor = os.open(filler, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            _allocate_everything(descriptor)
        finally:
            os.close(descriptor)
        return lambda: filler.unlink(missing_ok=True)

    def break_read_only(self) -> None:
        """As after an error of the device: the file system refuses all writes, also by open files, until `repair`."""
        device = Path(_run("findmnt", "-no", "SOURCE", str(self.mount)).strip()).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("drill")

    def repair(self) -> None:
        """Checked and mounted anew, writable. Nobody may have files open on it."""
        _run("umount", str(self.mount))
        checked = subprocess.run(["e2fsck", "-fy", str(self.image)], capture_output=True, text=True, check=False)
        if checked.returncode > 2:
            raise DrillError(f"e2fsck {self.image}: {checked.stdout.strip()} {checked.stderr.strip()}")
        _attach(self.image, self.mount)


def _allocate_everything(descriptor: int) -> None:
    """Grow the file until not even a single block can be had."""
    size_bytes, step_bytes = 0, 1 << 30
    while step_bytes >= _BLOCK_BYTES:
        try:
            os.posix_fallocate(descriptor, size_bytes, step_bytes)
            size_bytes += step_bytes
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise DrillError(f"cannot fill the disk: {error}") from error
            # What a failed attempt has taken stays taken, beyond the end of the file or not: begin after it.
            size_bytes = os.fstat(descriptor).st_size
            step_bytes //= 2


def make_disk(image: Path, mount: Path, size_bytes: int, owner: Account | None) -> Disk:
    """A fresh file system on a sparse image, mounted at `mount` and owned by the account, with no block reserved."""
    image.parent.mkdir(parents=True, exist_ok=True)
    mount.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as stream:
        stream.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image))
    _attach(image, mount)
    # Not ours to read for the account, which programs that walk the whole directory would stumble over.
    (mount / "lost+found").rmdir()
    if owner is not None:
        os.chown(mount, owner.uid, owner.gid)
    return Disk(image, mount)


def make_disks(directory: Path, sizes_bytes: Mapping[str, int], owner: Account | None, made: list[Disk]) -> list[Disk]:
    """One disk per name, mounted at `<directory>/<name>-disk`. Each is added to `made` as soon as it is mounted."""
    disks = []
    for name, size_bytes in sizes_bytes.items():
        disks.append(make_disk(directory / f"{name}.img", directory / f"{name}-disk", size_bytes, owner))
        made.append(disks[-1])
    return disks


def _attach(image: Path, mount: Path) -> None:
    _run("mount", "-o", "loop,noatime,errors=remount-ro", str(image), str(mount))


class Keeper:
    """Takes disks away: on `close`, or when this process has ended without."""

    def __init__(self, disks: Sequence[Disk]) -> None:
        self._disks = list(disks)
        self._process = subprocess.Popen(
            ["sh", "-c", _KEEPER, "disk-keeper", *(str(disk.mount) for disk in disks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def thaw_all(self) -> None:
        """No disk is frozen: processes that were stuck can end."""
        for disk in self._disks:
            disk.thaw()

    def close(self) -> None:
        """All disks are unmounted and their devices free. Idempotent."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=_KEEPER_TIMEOUT_S)


def _run(*argv: str) -> str:
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise DrillError(f"{' '.join(argv)}: {ran.stderr.strip()}")
    return ran.stdout
