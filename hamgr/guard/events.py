"""Descriptors that the guard waits for, and what it does when one is ready."""

from __future__ import annotations

import select
from _collections_abc import Callable


class Events:
    """One poll over all of them."""

    __slots__ = ("_on_ready", "_poller")

    def __init__(self) -> None:
        self._poller = select.poll()
        self._on_ready: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, handler: Callable[[int], None]) -> None:
        """Call `handler` with the descriptor whenever it is readable, or at its end."""
        self._on_ready[fd] = handler
        self._poller.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Never again. To be called before the descriptor is closed."""
        if self._on_ready.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def wait(self, pause_ms: int) -> bool:
        """Wait so long at most and call the handlers of what is ready; whether anything was."""
        ready = self._poller.poll(pause_ms)
        for fd, _ in ready:
            handler = self._on_ready.get(fd)
            if handler is not None:
                handler(fd)
        return bool(ready)
