"""The independent client as a drill sees it: two writer processes, and what they were told is committed."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psycopg

from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host, Process, wait_until_all_ended
from hamgr.drill.verdict import Ack
from hamgr.drill.writer import TABLE

ROUTED_INTERVAL_MS = 4
PINNED_INTERVAL_MS = 20


class NotWriting(DrillError):
    """Writes were not acknowledged steadily in time."""


def conninfo(address: str, port: int, user: str = "postgres") -> str:
    """libpq's connection string for the drill's superuser, without the password (argv is public).

    Superuser, so that the session may keep its refused writes out of the servers' logs.
    """
    return (
        f"host={address} port={port} user={user} dbname=postgres sslmode=disable gssencmode=disable "
        "tcp_user_timeout=1000 connect_timeout=2 application_name=hamgr-drill"
    )


QUIET = "options='-c log_min_messages=panic -c log_min_error_statement=panic'"


def make_table(dsn: str, password: str) -> None:
    """An empty table for a drill's rows, on the primary behind `dsn`. Raises psycopg.Error."""
    with psycopg.connect(dsn, password=password, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        connection.execute(
            f"CREATE TABLE {TABLE} (number bigint NOT NULL, writer text NOT NULL, host text NOT NULL,"
            " at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        connection.execute(f"GRANT INSERT ON {TABLE} TO PUBLIC")


def stored_numbers(dsn: str, password: str, writer: str) -> set[int]:
    """Numbers of a writer's rows that exist on the server behind `dsn`. Raises psycopg.Error."""
    with psycopg.connect(dsn, password=password, autocommit=True) as connection:
        rows = connection.execute(f"SELECT number FROM {TABLE} WHERE writer = %s", (writer,))
        return {row[0] for row in rows}


@dataclass(frozen=True, slots=True)
class Route:
    """A way to the primary past an intermediary, for the client that behaves like an application."""

    conninfo: str
    """libpq's connection string, with options of its own and without the password."""
    password: str
    names: Mapping[str, str]
    """ADDRESS:PORT as a server knows its own -> member."""


@dataclass(slots=True)
class AckLog:
    """A writer's output, read as it grows."""

    path: Path
    names: Mapping[str, str] = field(default_factory=dict)
    """Name of a host that the writer knows by its address only."""
    acks: list[Ack] = field(default_factory=list)
    _offset: int = 0

    def read(self) -> list[Ack]:
        """All acknowledged rows so far, in the order of their acknowledgement."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                whole, newline, _ = stream.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            self.acks += [self._ack_of(line) for line in whole.decode("ascii").splitlines()]
        return self.acks

    def _ack_of(self, line: str) -> Ack:
        number, host, timeline, sent_ns, acknowledged_ns = line.split()
        return Ack(int(number), self.names.get(host, host), int(timeline), int(sent_ns), int(acknowledged_ns))


class Client:
    """Both writers, running on one host from construction on. `targets`: host name -> conninfo.

    With a `route` the application takes that one; the writers that are pinned to one host each never do.
    """

    def __init__(
        self, host: Host, targets: Mapping[str, str], password: str, directory: Path, route: Route | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # The writers run as this process's user, not as the servers' account, and with its interpreter.
        self.routed = AckLog(directory / "routed.acks", route.names if route else {})
        self.pinned = AckLog(directory / "pinned.acks")
        self._logs = directory
        self._processes: list[Process] = []
        direct = [f"{name}={dsn} {QUIET}" for name, dsn in targets.items()]
        routed = [f"={route.conninfo}"] if route else direct
        for mode, log, interval_ms, ways, secret in (
            ("routed", self.routed, ROUTED_INTERVAL_MS, routed, route.password if route else password),
            ("pinned", self.pinned, PINNED_INTERVAL_MS, direct, password),
        ):
            log.path.unlink(missing_ok=True)
            self._processes.append(
                host.spawn(
                    [sys.executable, "-m", "hamgr.drill.writer", mode, str(log.path), str(interval_ms), *ways],
                    directory / f"{mode}.log",
                    env={"PGPASSWORD": secret},
                    cwd=directory,
                    as_account=False,
                )
            )

    def wait_until_writing(self, since_ns: int, steady_s: float, timeout_s: float) -> None:
        """True on return: rows sent after `since_ns` are acknowledged, steadily for the last `steady_s`.

        Steadily: no pause over half a second. Raises NotWriting when that does not come in `timeout_s`, DrillError
        when a writer died.
        """
        deadline = time.monotonic() + timeout_s
        while not is_steady(self.routed.read(), since_ns, time.monotonic_ns(), steady_s):
            self._check_alive()
            if time.monotonic() > deadline:
                raise NotWriting(f"no steady writes within {timeout_s:g} s; logs: {self._logs}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends both writers; true on return: their outputs are complete."""
        for process in self._processes:
            process.send(signal.SIGTERM)
        if not wait_until_all_ended(self._processes, 10.0):
            raise DrillError(f"the client does not end; logs: {self._logs}")

    def _check_alive(self) -> None:
        for process in self._processes:
            if process.ended.is_set():
                raise DrillError(f"the client died: see {process.log}")


def is_steady(acks: Sequence[Ack], since_ns: int, now_ns: int, steady_s: float) -> bool:
    """Whether rows sent after `since_ns` were acknowledged for the last `steady_s` without a long pause."""
    longest_pause_ns = 500_000_000
    begin_ns = now_ns - int(steady_s * 1e9)
    if begin_ns < since_ns:
        return False
    ends = [ack.acknowledged_ns for ack in acks[-2000:] if ack.sent_ns >= since_ns]
    recent = [end for end in ends if end >= begin_ns]
    instants = [begin_ns, *recent, now_ns]
    pauses = (later - earlier for earlier, later in pairwise(instants))
    return bool(recent) and max(pauses) <= longest_pause_ns
