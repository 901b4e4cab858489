"""The guard's socket: `<runtime_dir>/guard.sock`, SOCK_SEQPACKET, one datagram per command or answer.

Fields are separated by NUL. Commands: `ping`, `kill`, `start <argv...>`, `status <text>` (for the service manager; no
answer), `retire` (to a stand-in, from the guard that takes its place). Answers: `pong <guard pid>`, `killed <n>`,
`started <pid> <start ticks>`, `retiring`, `error <text>`. To all: `exited <pid> <wait status>`, -1 = unknown.

`_socket` and not `socket`: the latter costs half a mebibyte of selectors and enumerations.
"""

from __future__ import annotations

import _socket
import os

from hamgr.guard.layout import SOCKET_NAME

_LARGEST_COMMAND_BYTES = 65536
_MOST_CLIENTS = 16


class Clients:
    """The listening socket and who is connected. Nothing here ever blocks."""

    __slots__ = ("_by_fd", "_listener", "_path")

    def __init__(self, runtime_dir: str) -> None:
        """Listen. The caller holds the lock on the page, so a socket that is there is a dead guard's."""
        self._path = os.path.join(runtime_dir, SOCKET_NAME)
        self._unlink()
        self._by_fd: dict[int, _socket.socket] = {}
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        mask = os.umask(0o177)
        try:
            self._listener.bind(self._path)
        finally:
            os.umask(mask)
        self._listener.listen(_MOST_CLIENTS)

    def _unlink(self) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return

    @property
    def listener_fd(self) -> int:
        return self._listener.fileno()

    def accept(self) -> int | None:
        """The descriptor of a new client, None when there is none or no room."""
        try:
            accepted: tuple[int, object] = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return None
        fd = accepted[0]
        if len(self._by_fd) >= _MOST_CLIENTS:
            os.close(fd)
            return None
        client = _socket.socket(fileno=fd)
        client.setblocking(False)
        self._by_fd[fd] = client
        return fd

    def receive(self, fd: int) -> list[str] | None:
        """The fields of one command; [] when there is none after all; None when the client is gone."""
        client = self._by_fd.get(fd)
        if client is None:
            return None
        try:
            message, _, flags, _ = client.recvmsg(_LARGEST_COMMAND_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not message:
            return None
        if flags & _socket.MSG_TRUNC:
            return ["too long"]
        return os.fsdecode(message).split("\0")

    def send(self, fd: int, *fields: object) -> bool:
        """Whether the client took it; one that does not is to be dropped."""
        client = self._by_fd.get(fd)
        if client is None:
            return True
        try:
            client.send(os.fsencode("\0".join(map(str, fields))), _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def connected(self) -> list[int]:
        """Descriptors of all clients."""
        return list(self._by_fd)

    def drop(self, fd: int) -> None:
        """Close one client."""
        client = self._by_fd.pop(fd, None)
        if client is not None:
            client.close()

    def close(self) -> None:
        """Stop listening, take the name away, close all."""
        self._unlink()
        self._listener.close()
        for fd in self.connected():
            self.drop(fd)


def ask_to_retire(runtime_dir: str) -> None:
    """The stand-in there, if any, has been asked to make room. Its answer is that the lock becomes free."""
    drop_command(runtime_dir, "retire")


def drop_command(runtime_dir: str, *fields: str) -> bool:
    """A command to which no answer is awaited; whether a guard will read it. Never blocks."""
    asking = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        asking.connect(os.path.join(runtime_dir, SOCKET_NAME))
        asking.send(os.fsencode("\0".join(fields)), _socket.MSG_NOSIGNAL)
    except OSError:
        return False
    finally:
        asking.close()
    return True
