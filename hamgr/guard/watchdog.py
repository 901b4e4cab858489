"""The Linux watchdog device: it resets the host by the deadline when the guard can do nothing any more.

Each sign of life is given for no longer than the lease still lasts: with less left than the device's timeout the
timeout is shortened, and below its least (1 s) no sign is given. The device is let go (the letter V, "magic close")
only when no deadline binds a server. Closed without it, by the end of the guard, it runs on, and the next guard takes
it over in time or the host is reset. Source: Documentation/watchdog/watchdog-api.rst.
"""

from __future__ import annotations

import fcntl
import os

from hamgr.guard.layout import WATCHDOG_ACTIVE, WATCHDOG_FAILED, WATCHDOG_OFF, SharedPage
from hamgr.guard.words import WARNING, say

_SECOND_NS = 1_000_000_000
_SET_TIMEOUT = 0xC0045706  # WDIOC_SETTIMEOUT = _IOWR('W', 6, int), linux/watchdog.h
_RETRY_NS = _SECOND_NS


class Watchdog:
    """The device, closed until a server is bound by a deadline. Nothing here blocks."""

    __slots__ = ("_device", "_fd", "_is_settable", "_longest_s", "_page", "_retry_at_ns", "_said", "_timeout_s")

    def __init__(self, page: SharedPage, ordered: tuple[int, str] | None) -> None:
        """`ordered`: longest timeout in whole seconds and the device's path; None: there is none."""
        self._page = page
        self._longest_s, self._device = ordered or (0, "")
        self._fd: int | None = None
        self._timeout_s = 0
        self._is_settable = True
        self._retry_at_ns = 0
        self._said: set[str] = set()
        if page.watchdog == WATCHDOG_ACTIVE and self._device:
            # Left running by a guard that died.
            self._open(0)
        page.watchdog = WATCHDOG_OFF if self._fd is None else WATCHDOG_ACTIVE

    def mind(self, now: int, is_bound: bool) -> None:
        """Open, keep alive or let go, as the page wants it. `is_bound`: a server may be there that a deadline binds."""
        if not is_bound:
            self.release()
            return
        deadline_ns = self._page.deadline_ns
        # Without a device the longest is 0, and nothing is ever done.
        left_s = min((deadline_ns - now) // _SECOND_NS, self._longest_s) if deadline_ns else self._longest_s
        if left_s < 1:
            return
        if self._fd is None and now >= self._retry_at_ns:
            self._open(now)
        if self._fd is not None:
            self._keep_alive(now, left_s)

    def _open(self, now: int) -> None:
        try:
            self._fd = os.open(self._device, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._fail(now, error)
            return
        self._timeout_s = 0
        self._is_settable = True

    def _keep_alive(self, now: int, left_s: int) -> None:
        if self._is_settable and self._timeout_s != left_s:
            self._set_timeout(left_s)
        if self._timeout_s > left_s or self._fd is None:
            return
        try:
            os.write(self._fd, b"\0")
        except BlockingIOError:
            return
        except OSError as error:
            os.close(self._fd)
            self._fd = None
            self._fail(now, error)
            return
        self._page.watchdog = WATCHDOG_ACTIVE

    def _set_timeout(self, timeout_s: int) -> None:
        """The driver may grant another one: then that counts. A device that cannot be told is taken as it is."""
        asked = bytearray(timeout_s.to_bytes(4, "little"))
        assert self._fd is not None
        try:
            fcntl.ioctl(self._fd, _SET_TIMEOUT, asked)
        except OSError as error:
            self._is_settable = False
            self._timeout_s = self._longest_s
            self._complain(f"its timeout cannot be set, taken to be {self._longest_s} s: {error.strerror}")
            return
        self._timeout_s = int.from_bytes(asked, "little")

    def _fail(self, now: int, error: OSError) -> None:
        self._page.watchdog = WATCHDOG_FAILED
        self._retry_at_ns = now + _RETRY_NS
        self._complain(f"cannot be used, going on without: {error.strerror}")

    def _complain(self, text: str) -> None:
        """Once for each trouble."""
        if text not in self._said:
            self._said.add(text)
            say(f"watchdog device {self._device}: {text}", WARNING)

    def release(self) -> None:
        """No server is bound: the device is switched off."""
        if self._fd is not None:
            try:
                os.write(self._fd, b"V")
            except OSError as error:
                self._complain(f"cannot be switched off: {error.strerror}")
            os.close(self._fd)
            self._fd = None
        if self._page.watchdog == WATCHDOG_ACTIVE:
            self._page.watchdog = WATCHDOG_OFF
