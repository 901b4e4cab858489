"""Transactions and their answers as plain values, free of gRPC: what a fake can carry out as well as etcd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it is. `value` is None where its bytes are no UTF-8."""

    key: str
    value: str | None
    lease_id: int = 0
    mod_revision: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """A key that was deleted, or vanished with its lease, at that revision."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition: that field of the key equals that. An absent key has revision and lease 0 and no value."""

    key: str
    field: Literal["value", "mod_revision", "lease_id"]
    equals: str | int


@dataclass(frozen=True, slots=True)
class Put:
    """Write; lease 0 takes the key off any lease."""

    key: str
    value: str
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key, or with `end` all keys from `key` up to but without `end`."""

    key: str
    end: str = ""


@dataclass(frozen=True, slots=True)
class Range:
    """Read one key, or with `end` all keys from `key` up to but without `end`."""

    key: str
    end: str = ""
    keys_only: bool = False


Op = Put | Delete | Range


@dataclass(frozen=True, slots=True)
class Txn:
    """All `compares` hold: `then` is done, else `otherwise`; at one revision."""

    compares: tuple[Compare, ...] = ()
    then: tuple[Op, ...] = ()
    otherwise: tuple[Op, ...] = ()

    @property
    def is_read(self) -> bool:
        """True when neither branch changes anything."""
        return all(isinstance(op, Range) for op in (*self.then, *self.otherwise))


@dataclass(frozen=True, slots=True)
class Answer:
    """A transaction's answer: which branch was taken, at which revision, and its ranges in order."""

    succeeded: bool
    revision: int
    ranges: tuple[tuple[Entry, ...], ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries of all ranges."""
        return tuple(entry for entries in self.ranges for entry in entries)


@dataclass(frozen=True, slots=True)
class Changes:
    """All that one or more revisions changed in the watched range; `revision` is the last of them."""

    revision: int
    events: tuple[Entry | Removed, ...]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The watch lost its stream and is resuming by itself; what it yields next has no gap."""

    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes were missed for good: whoever watches has to read again. The watch is over."""

    text: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A new lease. `ttl_s` is what etcd granted, which may be more than was asked for."""

    lease_id: int
    ttl_s: float


def absent(key: str) -> Compare:
    """The key does not exist."""
    return Compare(key, "mod_revision", 0)


def unchanged(key: str, mod_revision: int) -> Compare:
    """The key has not been written since that revision; 0: it does not exist."""
    return Compare(key, "mod_revision", mod_revision)


def holds(key: str, value: str) -> Compare:
    """The key exists and has that value."""
    return Compare(key, "value", value)


def prefix_end(prefix: str) -> str:
    """The least key greater than all that begin with `prefix`, which must end in ASCII (here: '/')."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
