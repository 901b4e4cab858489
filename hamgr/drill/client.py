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


def conninfo(address: str, port: int) -> str:
    """libpq's connection string for the drill's superuser, without the password (argv is public).

    Superuser, so that the session may keep its refused writes out of the servers' logs.
    """
    return (
        f"host={address} port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable "
        "tcp_user_timeout=1000 connect_timeout=2 application_name=hamgr-drill"
    )


_QUIET = "options='-c log_min_messages=panic -c log_min_error_statement=panic'"


def make_table(dsn: str, password: str) -> None:
    """An empty table for a drill's rows, on the primary behind `dsn`. Raises psycopg.Error."""
    with psycopg.connect(dsn, password=password, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        connection.execute(
            f"CREATE TABLE {TABLE} (number bigint NOT NULL, writer text NOT NULL, host text NOT NULL,"
            " at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )


def stored_numbers(dsn: str, password: str, writer: str) -> set[int]:
    """Numbers of a writer's rows that exist on the server behind `dsn`. Raises psycopg.Error."""
    with psycopg.connect(dsn, password=password, autocommit=True) as connection:
        rows = connection.execute(f"SELECT number FROM {TABLE} WHERE writer = %s", (writer,))
        return {row[0] for row in rows}


@dataclass(slots=True)
class AckLog:
    """A writer's output, read as it grows."""

    path: Path
    acks: list[Ack] = field(default_factory=list)
    _offset: int = 0

    def read(self) -> list[Ack]:
        """All acknowledged rows so far, in the order of their acknowledgement."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                whole, newline, _ = stream.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            self.acks += [_ack_of(line) for line in whole.decode("ascii").splitlines()]
        return self.acks


def _ack_of(line: str) -> Ack:
    number, host, timeline, sent_ns, acknowledged_ns = line.split()
    return Ack(int(number), host, int(timeline), int(sent_ns), int(acknowledged_ns))


class Client:
    """Both writers, running on one host from construction on. `targets`: host name -> conninfo."""

    def __init__(self, host: Host, targets: Mapping[str, str], password: str, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # The writers run as this process's user, not as the servers' account, and with its interpreter.
        self.routed = AckLog(directory / "routed.acks")
        self.pinned = AckLog(directory / "pinned.acks")
        self._logs = directory
        self._processes: list[Process] = []
        for mode, log, interval_ms in (
            ("routed", self.routed, ROUTED_INTERVAL_MS),
            ("pinned", self.pinned, PINNED_INTERVAL_MS),
        ):
            log.path.unlink(missing_ok=True)
            self._processes.append(
                host.spawn(
                    _writer_argv(mode, log.path, interval_ms, targets),
                    directory / f"{mode}.log",
                    env={"PGPASSWORD": password},
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


def _writer_argv(mode: str, output: Path, interval_ms: int, targets: Mapping[str, str]) -> list[str]:
    named = [f"{name}={dsn} {_QUIET}" for name, dsn in targets.items()]
    return [sys.executable, "-m", "hamgr.drill.writer", mode, str(output), str(interval_ms), *named]
