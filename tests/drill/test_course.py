"""The course of a drill: thinned, of bounded size, with the records' clock brought together with the client's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from hamgr.drill.course import CLOSE_BINS, WHOLE_BINS, Course, Row, Window, course_of
from hamgr.drill.verdict import Ack, judge

MS = 1_000_000
FAULT_NS = 1_000 * MS


def steady(host: str, timeline: int, begin_ms: int, end_ms: int, step_ms: int = 4) -> list[Ack]:
    """A row sent every `step_ms`, acknowledged 1 ms later."""
    instants = range(begin_ms, end_ms, step_ms)
    return [Ack(begin_ms * 1000 + at, host, timeline, at * MS, (at + 1) * MS) for at in instants]


def record_of(leader: str, timeline: int, writable_s: float | None) -> dict[str, Any]:
    stage = {"name": "writable", "start_s": 0.0, "end_s": writable_s, "by": leader, "clock": "boottime"}
    return {"term": 2, "leader": leader, "timeline": timeline, "stages": [stage]}


def course(
    routed: Sequence[Ack], pinned: Sequence[Ack] = (), end_ms: int = 4_000, records: Sequence[dict[str, Any]] = ()
) -> Course:
    stored = {ack.number for ack in [*routed, *pinned]}
    times = {"fault_ns": FAULT_NS, "end_ns": end_ms * MS}
    verdict = judge(routed, pinned, stored_routed=stored, stored_pinned=stored, **times)
    return course_of({"routed": routed, "pinned": pinned}, verdict, **times, undone_ns=None, records=records)


def counted(window: Window) -> int:
    return sum(sum(row.counts) for row in window.rows)


def test_every_write_up_to_the_verdict_is_counted_once_in_the_whole() -> None:
    routed, pinned = steady("a", 1, 0, 1_000) + steady("b", 2, 1_300, 3_990), steady("b", 2, 1_310, 3_990, 20)
    made = course(routed, pinned)
    assert counted(made.whole) == len(routed) + len(pinned)
    assert {(row.writer, row.host) for row in made.whole.rows} == {("routed", "a"), ("routed", "b"), ("pinned", "b")}


def test_course_of_a_long_drill_is_no_bigger_than_that_of_a_short_one() -> None:
    short = course(steady("a", 1, 0, 4_000))
    long = course(steady("a", 1, 0, 400_000), end_ms=400_000)
    sizes = [len(json.dumps(asdict(each))) for each in (short, long)]
    assert sizes[1] < 2 * sizes[0]
    assert (short.whole.bins, short.close.bins) == (long.whole.bins, long.close.bins) == (WHOLE_BINS, CLOSE_BINS)


def test_close_up_shows_the_gap_with_a_margin_and_single_writes() -> None:
    made = course(steady("a", 1, 0, 1_000) + steady("b", 2, 1_200, 4_000))
    assert made.gap.begin_s == pytest.approx(-0.003)
    assert made.gap.end_s == pytest.approx(0.201)
    assert made.close.begin_s < made.gap.begin_s < made.gap.end_s < made.close.end_s
    assert max(count for row in made.close.rows for count in row.counts) == 1


def test_gap_that_never_ends_lasts_up_to_the_verdict() -> None:
    made = course(steady("a", 1, 0, 1_000))
    assert (made.gap.begin_s, made.gap.end_s) == (pytest.approx(-0.003), 3.0)


def test_record_is_placed_where_its_writable_meets_the_first_write_of_the_new_leadership() -> None:
    made = course(steady("a", 1, 0, 1_000) + steady("b", 2, 1_200, 4_000), records=[record_of("b", 2, 0.15)])
    (change,) = made.changes
    assert change.zero_s is not None
    assert change.zero_s + 0.15 == pytest.approx(0.201)


@pytest.mark.parametrize(
    "record", [record_of("b", 3, 0.15), record_of("c", 2, 0.15), record_of("b", 2, None), {"stages": "gone"}, {}]
)
def test_record_that_shares_no_instant_with_the_client_has_no_place(record: dict[str, Any]) -> None:
    made = course(steady("a", 1, 0, 1_000) + steady("b", 2, 1_200, 4_000), records=[record])
    assert made.changes[0].zero_s is None


def test_two_primaries_last_as_long_as_the_verdict_says() -> None:
    made = course(
        steady("a", 1, 0, 1_000) + steady("b", 2, 1_500, 4_000), pinned=steady("a", 1, 0, 2_501, 20), end_ms=4_000
    )
    (pair,) = made.two_primaries
    assert pair.what == "a/1 and b/2"
    assert pair.begin_s == pytest.approx(0.501)
    assert pair.end_s == pytest.approx(1.5)


def test_drill_without_any_write_has_a_course() -> None:
    made = course([])
    assert counted(made.whole) == counted(made.close) == 0
    assert (made.gap.begin_s, made.gap.end_s) == (0.0, 3.0)


@pytest.mark.parametrize(
    ("begin_s", "bin_s", "bins", "counts"),
    [
        (0.0, 0.0, 2, (1, 1)),
        (0.0, -1.0, 2, (1, 1)),
        (float("inf"), 1.0, 2, (1, 1)),
        (0.0, 1.0, 0, ()),
        (0.0, 1.0, 2, (1,)),
        (0.0, 1.0, 2, (1, -1)),
        (0.0, 1.0, 10**6, (0,) * 10**6),
    ],
)
def test_window_that_nobody_could_draw_cannot_be_made(
    begin_s: float, bin_s: float, bins: int, counts: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(begin_s, bin_s, bins, (Row("routed", "a", counts),))
