"""A control group for the server alone, below the one that systemd has delegated to this service.

One write to it kills all that is in it, however many there are and whatever they fork meanwhile; by /proc alone each
process costs the guard some 60 µs, and a few thousand backends the time that is left before the deadline. It is an
addition: the sweep over /proc finds whatever is not in the group, and says when nothing is left.
Source: Documentation/admin-guide/cgroup-v2.rst (cgroup.kill, since Linux 5.14); systemd.resource-control(5), Delegate=.
"""

from __future__ import annotations

import os

_MOUNT = "/sys/fs/cgroup"
_NAME = "server"
_UNIFIED = "0::"
_READ_BYTES = 65536


def _delegated(membership: str, mount: str) -> str | None:
    """The group that this process is in, if it belongs to its user: nobody else is in there. Never one of root's."""
    try:
        with open(membership, encoding="utf-8", errors="surrogateescape") as file:
            found = [line for line in file.read().splitlines() if line.startswith(_UNIFIED)]
        group = mount + found[0].removeprefix(_UNIFIED) if found else ""
        is_ours = os.geteuid() != 0 and group != "" and os.stat(group).st_uid == os.geteuid()
    except OSError:
        return None
    return group if is_ours else None


class ServerGroup:
    """The server's group; without one, nothing happens here. Nothing blocks: this is no disk."""

    __slots__ = ("_path",)

    def __init__(self, runtime_dir: str, membership: str = "/proc/self/cgroup", mount: str = _MOUNT) -> None:
        """Named after the runtime directory: should another guard be in the same service, the two share no group."""
        self._path = ""
        group = _delegated(membership, mount)
        if group is None:
            return
        path = os.path.join(group, _NAME + runtime_dir.replace("/", "-"))
        try:
            os.makedirs(path, exist_ok=True)
        except OSError:
            return
        if os.access(os.path.join(path, "cgroup.kill"), os.W_OK):
            self._path = path

    def enter(self) -> None:
        """This process, and all that it starts from now on, is in the group. Outside of it the server runs as well."""
        if self._path:
            self._write("cgroup.procs", b"0")

    def kill(self) -> list[int]:
        """All that is in the group has SIGKILL pending; who that was."""
        if not self._path:
            return []
        pids = self._pids()
        if pids:
            self._write("cgroup.kill", b"1")
        return pids

    def _pids(self) -> list[int]:
        try:
            file_no = os.open(os.path.join(self._path, "cgroup.procs"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return []
        text = b""
        try:
            while part := os.read(file_no, _READ_BYTES):
                text += part
        except OSError:
            return []
        finally:
            os.close(file_no)
        return [int(pid) for pid in text.split()]

    def _write(self, name: str, value: bytes) -> None:
        try:
            file_no = os.open(os.path.join(self._path, name), os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(file_no, value)
        except OSError:
            return
        finally:
            os.close(file_no)
