"""Own types for the quantities that decisions compare, so that one cannot be taken for another."""

from __future__ import annotations

from typing import NewType

Term = NewType("Term", int)
"""Number of a leadership, counted in etcd; grows by one with every change of leader. 0: none yet."""

Timeline = NewType("Timeline", int)
"""PostgreSQL timeline id; 0 where it is not known."""

Instant = NewType("Instant", float)
"""Seconds on this host's CLOCK_BOOTTIME: does not step, counts suspend, means nothing on another host."""

WallTime = NewType("WallTime", float)
"""Seconds since 1970 on some host's wall clock: for people to read, never for a decision."""


def after(instant: Instant, delay_s: float) -> Instant:
    """The instant `delay_s` seconds after `instant`."""
    return Instant(instant + delay_s)


class Lsn(int):
    """A WAL position in bytes. Prints as PostgreSQL writes it: two hexadecimal halves."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read PostgreSQL's `16/B374D848`. Raises ValueError with the text if it is not of that form."""
        high, slash, low = text.partition("/")
        if not slash:
            raise ValueError(f"not a WAL position: {text!r}")
        return cls((int(high, 16) << 32) | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"
