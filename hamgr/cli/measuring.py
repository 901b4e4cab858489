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
from hamgr.cli.errors import Unavailable
from hamgr.dcs.errors import StoreError, StoreUnavailable
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.lease import RenewalConnection

RENEW_PAUSE_S = 0.02
"""Far more often than an agent renews: the rarer a stall, the more looks it takes to meet one."""
FLUSH_PAUSE_S = 0.05
LEASE_S = 60.0
PATIENCE_S = 5.0
PAGE = 8192


@dataclass(slots=True)
class Measured:
    """Seconds. `stalls_s`: from when a renewal was due until it was confirmed; `late_s`: until this host sent it."""

    span_s: float = 0.0
    stalls_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    unanswered: int = 0
    flushes_s: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(site: Site, directories: dict[str, Path], for_s: float, on_progress: Callable[[float], None]) -> Measured:
    """Measure for that long, or until Ctrl-C. Its lease is given back; its files are removed. Raises Unavailable."""
    measured, ended = Measured(), threading.Event()
    lease_id = site.run(lambda store: store.grant_lease(LEASE_S)).lease_id
    connection = RenewalConnection(site.config.etcd, ScopeKeys.of(site.scope, site.config.namespace))
    flushers = [
        threading.Thread(target=_flush, args=(name, directory, measured, ended), daemon=True)
        for name, directory in directories.items()
    ]
    began = time.monotonic()
    try:
        for flusher in flushers:
            flusher.start()
        with suppress(KeyboardInterrupt):
            _renew(connection, lease_id, measured, began + for_s, lambda: on_progress(time.monotonic() - began))
    finally:
        measured.span_s = time.monotonic() - began
        ended.set()
        connection.close()
        for flusher in flushers:
            flusher.join(PATIENCE_S)
        with suppress(Unavailable):
            site.run(lambda store: store.revoke_lease(lease_id))
    return measured


def _renew(
    connection: RenewalConnection, lease_id: int, measured: Measured, end: float, on_turn: Callable[[], None]
) -> None:
    due = time.monotonic()
    while due < end:
        time.sleep(max(0.0, due - time.monotonic()))
        measured.late_s.append(time.monotonic() - due)
        try:
            connection.renew(lease_id, PATIENCE_S)
        except StoreUnavailable:
            measured.unanswered += 1
        except StoreError as error:
            raise Unavailable(f"etcd: {error}") from error
        now = time.monotonic()
        measured.stalls_s.append(now - due)
        on_turn()
        due = now + RENEW_PAUSE_S


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
