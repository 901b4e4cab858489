"""Files written whole and durably, and only where their content changes. Blocking: call through Disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

SECRET_MODE = 0o600


def read_text(path: Path) -> str | None:
    """The content, or None if there is no such file."""
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return None


def write_if_changed(path: Path, text: str, mode: int = SECRET_MODE) -> bool:
    """The file holds exactly `text` with `mode`, and survives a power cut; True if it did not before.

    A reader sees the old content or the new one, never a part.
    """
    same_mode = path.exists() and (path.stat().st_mode & 0o777) == mode
    if same_mode and read_text(path) == text:
        return False
    beside = path.with_name(f".{path.name}.hamgr-tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", errors="surrogateescape") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    sync_dir(path.parent)
    return True


def write_beside(path: Path, text: str) -> bool:
    """As `write_if_changed`, of a file that stands beside the data directory, and on a new host comes before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_if_changed(path, text)


def remove(path: Path) -> bool:
    """There is no such file, durably; True if there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_dir(path.parent)
    return True


def sync_dir(path: Path) -> None:
    """Names in this directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_passfile(path: Path, entries: dict[str, str]) -> bool:
    """libpq's password file has one line per role of `entries`, for any host and port; True if it changed."""
    lines = [f"*:*:*:{_escaped(user)}:{_escaped(word)}\n" for user, word in entries.items() if word]
    return write_beside(path, "".join(lines))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def remove_tree(path: Path) -> None:
    """There is no such file or directory. Where links lead, all stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
