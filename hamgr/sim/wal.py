"""What WAL says, as a chain of commits: servers compare positions and timelines, checkers compare chains."""

from __future__ import annotations

from collections.abc import Iterator


class Commit:
    """One commit and, by `before`, everything that the WAL held when it was written. Ends at `lsn`."""

    __slots__ = ("before", "lsn", "number")

    def __init__(self, number: int, lsn: int, before: Commit | None) -> None:
        self.number = number
        self.lsn = lsn
        self.before = before


def back_from(head: Commit | None) -> Iterator[Commit]:
    """The commits of that WAL, the newest first."""
    while head is not None:
        yield head
        head = head.before


def contains(head: Commit | None, wanted: Commit | None) -> bool:
    """True when `wanted` (None: nothing) is in the WAL that ends with `head`."""
    if wanted is None:
        return True
    while head is not None and head.lsn >= wanted.lsn:
        if head is wanted:
            return True
        head = head.before
    return False


def at_most(head: Commit | None, lsn: int) -> Commit | None:
    """The last commit that ends at or before `lsn`."""
    while head is not None and head.lsn > lsn:
        head = head.before
    return head
