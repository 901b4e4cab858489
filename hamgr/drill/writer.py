"""The writing client, a program of its own, so that its timing is nobody else's.

`python -m hamgr.drill.writer MODE OUTPUT INTERVAL_MS NAME=CONNINFO...`
  An empty NAME: whoever is behind that address, a load balancer or a pooler, says its own address with each row,
      and that (ADDRESS:PORT) stands for the host.
  MODE routed: behaves like an application: one connection, a numbered row every INTERVAL_MS, each a commit;
      on any error or no answer in time it tries all hosts at once and stays with the first that commits.
  MODE pinned: keeps writing to every host all the time, each on its own, so that a second primary is seen
      even when no application would go there.
Appends one line per acknowledged row to OUTPUT: `number host timeline sent_ns acknowledged_ns`, on
CLOCK_MONOTONIC. A row that was sent and never acknowledged may or may not exist: it is not in OUTPUT and its
number is not used again. SIGTERM writes out what is pending and ends with 0.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

import psycopg
from psycopg import pq

TABLE = "hamgr_drill"

_PATIENCE_NS = 1_000_000_000
"""A connect or a commit without answer for so long is given up."""

_RETRY_NS = 4_000_000
"""Pause before the same host is tried again: a failed attempt costs the server a fork."""

_IDLE_FLUSH_NS = 100_000_000

_INSERT = (
    f"INSERT INTO {TABLE} (number, writer, host) VALUES ($1, $2, $3)"
    " RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),"
    " host(inet_server_addr()) || ':' || inet_server_port()"
).encode()
"""The server's word on its timeline comes with the row: two leaderships of one host differ by it."""


@dataclass(slots=True)
class Slot:
    """One host as this client sees it: at most one connection with at most one row under way."""

    host: str
    """Empty: it is behind an intermediary."""
    conninfo: bytes
    connection: pq.abc.PGconn | None = None
    is_connected: bool = False
    polling: int = pq.PollingStatus.WRITING
    since_ns: int = 0
    """When the connect or the row under way began."""
    number: int | None = None
    """Of the row under way."""
    timeline: bytes | None = None
    """What came of the row so far: the server's timeline; empty: an error; None: nothing yet."""
    address: bytes = b""
    """The server's own, of the row under way."""
    next_ns: int = 0
    """Nothing is tried before."""

    def drop(self, now_ns: int, pause_ns: int) -> None:
        if self.connection is not None:
            self.connection.finish()
        self.connection, self.is_connected, self.number = None, False, None
        self.next_ns = now_ns + pause_ns


@dataclass(slots=True)
class Writer:
    """The event loop of both modes."""

    mode: str
    output: TextIO
    interval_ns: int
    slots: list[Slot]
    chosen: Slot | None = None
    """Routed: the host that this client stays with; None while it looks for one."""
    last_number: int = 0
    ending: bool = False
    flushed_ns: int = 0
    poll: select.poll = field(default_factory=select.poll)

    def run(self) -> None:
        while not self.ending:
            now_ns = time.monotonic_ns()
            active = [self.chosen] if self.chosen is not None else self.slots
            for slot in active:
                self._begin(slot, now_ns)
            self._wait(active, now_ns)
            if now_ns - self.flushed_ns > _IDLE_FLUSH_NS:
                self.output.flush()
                self.flushed_ns = now_ns
        self.output.flush()

    def _begin(self, slot: Slot, now_ns: int) -> None:
        """Start what is due on a slot, and give up what took too long."""
        busy = slot.number is not None or (slot.connection is not None and not slot.is_connected)
        if busy:
            if now_ns - slot.since_ns > _PATIENCE_NS:
                self._fail(slot, now_ns)
        elif now_ns >= slot.next_ns:
            if slot.connection is None:
                slot.connection = pq.PGconn.connect_start(slot.conninfo)
                slot.polling, slot.since_ns = pq.PollingStatus.WRITING, now_ns
                if slot.connection.status == pq.ConnStatus.BAD:
                    self._fail(slot, now_ns)
            else:
                self._send(slot, now_ns)

    def _send(self, slot: Slot, now_ns: int) -> None:
        assert slot.connection is not None
        self.last_number += 1
        slot.number, slot.since_ns, slot.timeline = self.last_number, now_ns, None
        row = [str(self.last_number).encode(), self.mode.encode(), slot.host.encode()]
        try:
            slot.connection.send_query_params(_INSERT, row)
            slot.connection.flush()
        except psycopg.Error:
            self._fail(slot, now_ns)

    def _wait(self, active: list[Slot], now_ns: int) -> None:
        """Wait for an answer on any slot, or until the next thing is due; then take in the answers."""
        by_fd: dict[int, Slot] = {}
        due_ns = now_ns + _IDLE_FLUSH_NS
        for slot in active:
            if slot.connection is None or (slot.is_connected and slot.number is None):
                due_ns = min(due_ns, slot.next_ns)
                continue
            writing = not slot.is_connected and slot.polling == pq.PollingStatus.WRITING
            by_fd[slot.connection.socket] = slot
            self.poll.register(slot.connection.socket, select.POLLOUT if writing else select.POLLIN)
        # poll() counts whole milliseconds: rounded up, so that it never spins.
        ready = self.poll.poll(max(0, -((time.monotonic_ns() - due_ns) // 1_000_000)))
        for fd in by_fd:
            self.poll.unregister(fd)
        for fd, _ in ready:
            # Gone when an answer taken in just before made this client stay with another host.
            if by_fd[fd].connection is not None:
                self._progress(by_fd[fd])

    def _progress(self, slot: Slot) -> None:
        assert slot.connection is not None
        try:
            if not slot.is_connected:
                self._go_on_connecting(slot)
            else:
                slot.connection.consume_input()
                if not slot.connection.is_busy():
                    self._take_answer(slot)
        except psycopg.Error:
            self._fail(slot, time.monotonic_ns())

    def _go_on_connecting(self, slot: Slot) -> None:
        assert slot.connection is not None
        slot.polling = slot.connection.connect_poll()
        if slot.polling == pq.PollingStatus.OK:
            slot.connection.nonblocking = 1
            slot.is_connected, slot.next_ns = True, 0
        elif slot.polling == pq.PollingStatus.FAILED:
            self._fail(slot, time.monotonic_ns())

    def _take_answer(self, slot: Slot) -> None:
        """Take what has arrived of the answer; the row counts when the server is ready for the next.

        Not before: the row's own result precedes the commit, and a server that shuts down while the commit waits
        for a standby sends that result, a warning, and the end of the connection.
        """
        assert slot.connection is not None
        while not slot.connection.is_busy():
            result = slot.connection.get_result()
            if result is None:
                self._finish_row(slot)
                return
            if result.status == pq.ExecStatus.TUPLES_OK and slot.timeline is None:
                slot.timeline = result.get_value(0, 0) or b""
                slot.address = result.get_value(0, 1) or b""
            else:
                slot.timeline = b""

    def _finish_row(self, slot: Slot) -> None:
        assert slot.connection is not None
        now_ns = time.monotonic_ns()
        if slot.connection.status != pq.ConnStatus.OK:
            self._fail(slot, now_ns)
            return
        if not slot.timeline:
            # A standby refuses the row and keeps the connection: the same one will do once it is promoted. Another one
            # through an intermediary may lead to somebody else.
            self._refused(slot, now_ns) if slot.host else self._fail(slot, now_ns)
            return
        host = slot.host or slot.address.decode()
        self.output.write(f"{slot.number} {host} {int(slot.timeline, 16)} {slot.since_ns} {now_ns}\n")
        slot.number = None
        slot.next_ns = max(slot.since_ns + self.interval_ns, now_ns)
        if self.mode == "routed" and self.chosen is None:
            self._choose(slot, now_ns)

    def _choose(self, slot: Slot, now_ns: int) -> None:
        self.chosen = slot
        for other in self.slots:
            if other is not slot:
                other.drop(now_ns, 0)

    def _refused(self, slot: Slot, now_ns: int) -> None:
        slot.number = None
        slot.next_ns = now_ns + (_RETRY_NS if self.mode == "routed" else self.interval_ns)
        self.chosen = None

    def _fail(self, slot: Slot, now_ns: int) -> None:
        slot.drop(now_ns, _RETRY_NS if self.mode == "routed" else self.interval_ns)
        self.chosen = None

    def end(self, *_: object) -> None:
        self.ending = True


def _take_precedence() -> None:
    """This client is on time even where a drill starves the machine. Left as it is where that is not permitted."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def main(arguments: list[str]) -> int:
    """Write until SIGTERM."""
    mode, output, interval_ms, *targets = arguments
    slots = [Slot(host, conninfo.encode()) for host, _, conninfo in (t.partition("=") for t in targets)]
    with open(output, "w", encoding="ascii") as stream:
        writer = Writer(mode, stream, int(float(interval_ms) * 1e6), slots)
        signal.signal(signal.SIGTERM, writer.end)
        _take_precedence()
        gc.disable()  # a collection is a gap of this client's own making
        writer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
