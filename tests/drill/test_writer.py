"""The client's event loop where real servers hit a case only by chance."""

from __future__ import annotations

import io
import socket
from dataclasses import dataclass, field

from psycopg import pq

from hamgr.drill.writer import Slot, Writer


@dataclass
class Answered:
    """A result that acknowledges a row on timeline 2."""

    status: int = pq.ExecStatus.TUPLES_OK

    def get_value(self, row: int, column: int) -> bytes:
        return b"00000002" if column == 0 else b"10.0.0.1:5432"


@dataclass
class Willing:
    """A connection whose server has acknowledged the row under way; readable, like a real one's socket."""

    pair: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    results: list[Answered | None] = field(default_factory=lambda: [Answered(), None])
    status: int = pq.ConnStatus.OK
    finished: bool = False

    def __post_init__(self) -> None:
        self.pair[1].send(b"x")

    @property
    def socket(self) -> int:
        return self.pair[0].fileno()

    def consume_input(self) -> None:
        return

    def is_busy(self) -> bool:
        return False

    def get_result(self) -> Answered | None:
        return self.results.pop(0)

    def finish(self) -> None:
        self.finished = True


def waiting_slot(host: str, number: int, connection: Willing) -> Slot:
    return Slot(host, b"", connection=connection, is_connected=True, number=number, since_ns=5)  # type: ignore[arg-type]


def test_application_stays_with_one_host_when_two_answer_at_once() -> None:
    first, second = Willing(), Willing()
    slots = [waiting_slot("a", 1, first), waiting_slot("b", 2, second)]
    writer = Writer("routed", io.StringIO(), 4_000_000, slots)
    writer._wait(slots, 10)
    chosen = writer.chosen
    assert chosen is not None
    assert first.finished != second.finished
    (line,) = writer.output.getvalue().splitlines()  # type: ignore[attr-defined]
    assert line.split()[:4] == [str({"a": 1, "b": 2}[chosen.host]), chosen.host, "2", "5"]


def test_pinned_writers_take_both_answers() -> None:
    slots = [waiting_slot("a", 1, Willing()), waiting_slot("b", 2, Willing())]
    writer = Writer("pinned", io.StringIO(), 20_000_000, slots)
    writer._wait(slots, 10)
    assert len(writer.output.getvalue().splitlines()) == 2  # type: ignore[attr-defined]


@dataclass
class Unwilling(Willing):
    """A standby: the row is refused, the connection stays."""

    results: list[Answered | None] = field(default_factory=lambda: [Answered(pq.ExecStatus.FATAL_ERROR), None])


def test_row_that_came_past_an_intermediary_is_the_servers_that_took_it() -> None:
    slots = [waiting_slot("", 1, Willing())]
    writer = Writer("routed", io.StringIO(), 4_000_000, slots)
    writer._wait(slots, 10)
    assert writer.output.getvalue().split()[:4] == ["1", "10.0.0.1:5432", "2", "5"]  # type: ignore[attr-defined]


def test_session_that_leads_to_a_standby_is_kept_only_where_no_intermediary_could_lead_elsewhere() -> None:
    for host, is_kept in (("a", True), ("", False)):
        connection = Unwilling()
        slots = [waiting_slot(host, 1, connection)]
        writer = Writer("routed", io.StringIO(), 4_000_000, slots)
        writer._wait(slots, 10)
        assert writer.output.getvalue() == ""  # type: ignore[attr-defined]
        assert connection.finished is not is_kept
