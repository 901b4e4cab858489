"""What the guard asks of its host: priority, locked memory, a name, and the service manager's ear."""

from __future__ import annotations

import _socket
import ctypes
import os

from hamgr.guard.layout import PRIORITY_NORMAL, PRIORITY_RAISED, PRIORITY_REALTIME

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_LONGEST_STATUS = 500


def take_name() -> None:
    """Be `hamgr-guard` in `ps -C` and `top`."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write("hamgr-guard")
    except OSError:
        return


def raise_priority() -> tuple[int, str | None]:
    """Run before the server does after a thaw: real-time, else nice -10. Children get neither.

    What was reached (PRIORITY_...), and what is missing if it is neither. Source: sched(7), SCHED_RESET_ON_FORK.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return PRIORITY_REALTIME, None
    except OSError:
        pass
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        return PRIORITY_RAISED, None
    except OSError as error:
        return PRIORITY_NORMAL, f"no raised priority (allow it by LimitRTPRIO=1 or LimitNICE=-10): {error.strerror}"


def lock_memory() -> str | None:
    """Keep in memory what was touched once (MCL_ONFAULT: all of the mappings would be 20 MiB).

    None when done, else what is missing. Source: mlockall(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        return None
    return f"memory not locked (allow it by LimitMEMLOCK=infinity): {os.strerror(ctypes.get_errno())}"


class ServiceManager:
    """systemd's notification socket, where there is one. Source: sd_notify(3)."""

    __slots__ = ("_address", "_socket", "is_there", "watchdog_ns")

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self.is_there = self._address != ""
        self._socket: _socket.socket | None = None
        self.watchdog_ns = 0
        """How often it hears WATCHDOG=1: a third of its limit, so that a round more does not exceed half; 0 = never."""
        if self._address:
            kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
            self._socket = _socket.socket(_socket.AF_UNIX, kind)
            limit_us = os.environ.get("WATCHDOG_USEC", "")
            self.watchdog_ns = int(limit_us) * 1000 // 3 if limit_us.isdigit() else 0

    def show(self, status: str) -> None:
        """What `systemctl status` shows of this service; one line, or it could be read as other news."""
        self.tell("STATUS=" + " ".join(status.split())[:_LONGEST_STATUS])

    def tell(self, state: str) -> None:
        """Send it, or leave it: a full or missing socket is not the guard's trouble."""
        if self._socket is not None:
            address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            try:
                self._socket.sendto(state.encode(), address)
            except OSError:
                return
