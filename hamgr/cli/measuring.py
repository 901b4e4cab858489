"""Measuring a member's environment for `hamgr calibrate`: etcd as a renewal sees it, this host's delays, its disks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hamgr.cli.connect import Site
from hamgr.cli.errors import CliError, Unavailable
from hamgr.dcs.errors import LeaseExpired, StoreError, StoreUnavailable
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.lease import RenewalConnection

RENEW_PAUSE_S = 0.02
"""Far more often than an agent renews: the rarer a stall, the more looks it takes to meet one."""
FLUSH_PAUSE_S = 0.05
LEASE_S = 60.0
PATIENCE_S = 5.0
"""A try to renew is given up after so long, and comes again: the stall goes on until one is confirmed."""
PAGE = 8192


@dataclass(slots=True)
class Measured:
    """Seconds. `stalls_s`: from when a renewal was due until it was confirmed; `late_s`: until this host sent it.
    `unfinished_s`: how long the last stall had lasted when measuring ended. `unanswered`: tries that were given up.
    """

    span_s: float = 0.0
    stalls_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    unfinished_s: float = 0.0
    unanswered: int = 0
    flushes_s: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def all_stalls_s(self) -> list[float]:
        """With the unfinished one, if that is the longest: it lasted so long at least."""
        return [*self.stalls_s, self.unfinished_s] if self.is_longest_unfinished else self.stalls_s

    @property
    def is_longest_unfinished(self) -> bool:
        return self.unfinished_s > max(self.stalls_s, default=0.0)


class ProbeLease:
    """A lease of the measuring's own, with nothing on it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.take()

    def take(self) -> None:
        """Another one. Raises Unavailable."""
        self.id = self._site.run(lambda store: store.grant_lease(LEASE_S)).lease_id

    def give_back(self) -> None:
        """It is gone, or will be within LEASE_S."""
        with suppress(CliError):
            self._site.run(lambda store: store.revoke_lease(self.id))


def measure(site: Site, directories: dict[str, Path], for_s: float, on_progress: Callable[[float], None]) -> Measured:
    """Measure for that long, or until Ctrl-C. Its lease is given back; its files are removed. Raises Unavailable."""
    measured, ended = Measured(), threading.Event()
    lease = ProbeLease(site)
    connection = RenewalConnection(site.config.etcd, ScopeKeys.of(site.scope, site.config.namespace))
    flushers = [
        threading.Thread(target=_flush, name=name, args=(name, directory, measured, ended), daemon=True)
        for name, directory in directories.items()
    ]
    began = time.monotonic()
    try:
        for flusher in flushers:
            flusher.start()
        with suppress(KeyboardInterrupt):
            _renew(connection, lease, measured, began + for_s, lambda: on_progress(time.monotonic() - began))
    finally:
        measured.span_s = time.monotonic() - began
        ended.set()
        connection.close()
        for flusher in flushers:
            flusher.join(PATIENCE_S)
        measured.notes += [
            f"a flush on the {flusher.name} disk had not ended {PATIENCE_S:g} s after the measuring"
            for flusher in flushers
            if flusher.is_alive()
        ]
        lease.give_back()
    return measured


def _renew(
    connection: RenewalConnection, lease: ProbeLease, measured: Measured, end: float, on_turn: Callable[[], None]
) -> None:
    due = time.monotonic()
    try:
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            measured.late_s.append(time.monotonic() - due)
            if not _until_confirmed(connection, lease, measured, end, on_turn):
                return
            now = time.monotonic()
            measured.stalls_s.append(now - due)
            due = now + RENEW_PAUSE_S
    finally:
        measured.unfinished_s = max(0.0, time.monotonic() - due)


def _until_confirmed(
    connection: RenewalConnection, lease: ProbeLease, measured: Measured, end: float, on_turn: Callable[[], None]
) -> bool:
    """False where there was no time left for another try."""
    while True:
        try:
            _confirm(connection, lease)
            return True
        except (StoreUnavailable, Unavailable):
            measured.unanswered += 1
        except StoreError as error:
            raise Unavailable(f"etcd: {error}") from error
        finally:
            on_turn()
        if time.monotonic() >= end:
            return False


def _confirm(connection: RenewalConnection, lease: ProbeLease) -> None:
    """A lease that ran out meanwhile is an answer as well; another takes its place."""
    try:
        connection.renew(lease.id, PATIENCE_S)
    except LeaseExpired:
        lease.take()


def _flush(name: str, directory: Path, measured: Measured, ended: threading.Event) -> None:
    """Write and fsync a page, as a commit of one row does, until told to end."""
    path = directory / f".hamgr-calibrate-{os.getpid()}"
    seen = measured.flushes_s.setdefault(name, [])
    try:
        with path.open("wb", buffering=0) as file:
            while not seen or not ended.wait(FLUSH_PAUSE_S):
                began = time.monotonic()
                file.seek(0)
                file.write(os.urandom(PAGE))
                os.fsync(file.fileno())
                seen.append(time.monotonic() - began)
    except OSError as error:
        measured.notes.append(f"the {name} disk was not measured: {directory}: {error.strerror}")
    finally:
        with suppress(OSError):
            path.unlink()
